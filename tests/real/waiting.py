"""Waiting for something that a real server does in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(probe: Callable[[], Awaitable[T]], timeout: float = 30.0) -> T:
    """Ask again and again until the answer is truthy, and return it. TimeoutError tells the last answer."""
    answer = None
    try:
        async with asyncio.timeout(timeout):
            # A real server sets no event of ours: it can only be asked.
            while not (answer := await probe()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise TimeoutError(f"after {timeout:.0f} s the answer is still {answer!r}") from error
    return answer
