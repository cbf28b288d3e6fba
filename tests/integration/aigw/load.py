"""Constant load on both faces of a gateway, every answer kept."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc


class Load:
    """What came of the calls: answers by replica and version, and the failures in words."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.failures: list[str] = []

    @property
    def count(self) -> int:
        """Calls that ended."""
        return sum(self.answers.values()) + len(self.failures)

    def by(self, replica: str) -> int:
        """Answers of one replica, on both faces."""
        return sum(count for (_, name, _), count in self.answers.items() if name == replica)

    async def more(self, calls: int) -> None:
        """Waits until so many further calls have ended."""
        target = self.count + calls
        async with asyncio.timeout(20):
            while self.count < target:  # noqa: ASYNC110 - the workers count, nobody signals
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def constant_load(gateway: Any, *, workers: int = 4, version: str = "") -> AsyncIterator[Load]:
    """`workers` callers per face, one call after the other; at the end each finishes its last."""
    load, stop = Load(), asyncio.Event()

    async def over_grpc() -> None:
        while not stop.is_set():
            try:
                answer = await gateway.infer(version)
            except grpc.aio.AioRpcError as error:
                load.failures.append(f"grpc {error.code().name} {error.details()}")
            else:
                load.answers["grpc", answer.id, answer.model_version] += 1

    async def over_rest() -> None:
        while not stop.is_set():
            status, body = await gateway.infer_rest()
            if status == 200:
                load.answers["rest", body["id"], body["model_version"]] += 1
            else:
                load.failures.append(f"rest {status} {body}")

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(over_grpc())
            group.create_task(over_rest())
        try:
            yield load
        finally:
            stop.set()
