"""Streams of answers over HTTP: newline-delimited JSON, server-sent events, or raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from chassis.rest import media


class Framing(Protocol):
    """How messages and a failure are written into a streamed body."""

    content_type: str

    def message(self, body: bytes) -> bytes:
        """One answer."""
        ...

    def failure(self, status: bytes) -> bytes:
        """The Status that ended the stream."""
        ...

    def idle(self) -> bytes:
        """What keeps a silent connection alive; empty when the form has nothing for it."""
        ...


class NdjsonFraming:
    """One JSON text a line; a failure is a last line whose one member is ``error``."""

    def __init__(self, content_type: str = media.NDJSON) -> None:
        self.content_type = content_type

    def message(self, body: bytes) -> bytes:
        """One answer."""
        return body + b"\n"

    def failure(self, status: bytes) -> bytes:
        """``{"error": Status}``."""
        return b'{"error":' + status + b"}\n"

    def idle(self) -> bytes:
        """Nothing: a blank line would trouble strict readers."""
        return b""


class SseFraming:
    """Server-sent events: an answer is a ``message`` event, a failure an ``error`` event, the end an ``end``
    event.
    """

    content_type = media.SSE

    def message(self, body: bytes) -> bytes:
        """One answer; compact JSON has no line breaks, so one data line holds it."""
        return b"data: " + body + b"\n\n"

    def failure(self, status: bytes) -> bytes:
        """``event: error`` with the Status."""
        return b"event: error\ndata: " + status + b"\n\n"

    def idle(self) -> bytes:
        """A comment, which clients skip."""
        return b": \n\n"


class RawFraming:
    """google.api.HttpBody: the chunks as they are.

    A failure cannot be told apart from data, so the body breaks off.
    """

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def message(self, body: bytes) -> bytes:
        """One chunk."""
        return body

    def failure(self, status: bytes) -> bytes:
        """Nothing that could be taken for data."""
        return b""

    def idle(self) -> bytes:
        """Nothing."""
        return b""


class Pump:
    """Runs a generator in one task of its own and hands its items over one at a time.

    ``started`` is set at the latest when the generator has given its first item, ended or failed.

    Waiting for an item with a time limit must not run the generator's steps in different tasks, as it would
    with `asyncio.wait_for(anext(...))`: handlers and interceptors keep context variables and timeouts across
    their yields.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], started: asyncio.Event, name: str) -> None:
        self._started = started
        self._queue: asyncio.Queue[tuple[bytes | None, BaseException | None]] = asyncio.Queue(maxsize=1)
        self._task = asyncio.create_task(self._run(source), name=name)

    async def next(self, timeout: float | None = None) -> bytes | None:
        """The next item, or None at the end. Raises TimeoutError, or what the generator raised."""
        async with asyncio.timeout(timeout):
            item, error = await self._queue.get()
        if error is not None:
            raise error
        return item

    async def close(self) -> None:
        """Cancel the generator if it runs and wait for it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, source: AsyncGenerator[bytes, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    self._started.set()
                    await self._queue.put((item, None))
        except Exception as error:  # noqa: BLE001 — handed over to the reader
            self._started.set()
            await self._queue.put((None, error))
        else:
            self._started.set()
            await self._queue.put((None, None))
