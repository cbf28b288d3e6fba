"""Constant load through the gateway on both faces, with every answer counted.

The client tries nothing again: what fails, fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
from penstock_client import NO_RETRIES, AsyncClient, PenstockError, Settings
from penstock_client.inference import Face

from deploy.digits import INPUT


@dataclass
class Load:
    """What has been asked and answered so far."""

    versions: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Requests that were answered well."""
        return self.versions.total()

    async def more(self, requests: int, *, version: str | None = None, timeout: float = 20) -> None:
        """Waits until so many further requests (of a version) are answered."""

        def count() -> int:
            return self.answered if version is None else self.versions[version]

        wanted, deadline = count() + requests, time.monotonic() + timeout
        while count() < wanted:
            assert time.monotonic() < deadline, f"only {self} within {timeout:g} s"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def load(settings: Settings, model: str, image: np.ndarray, workers: int = 2) -> AsyncIterator[Load]:
    """Asks `model` from so many workers, half over gRPC and half over REST, until the context ends."""
    found = Load()
    over = asyncio.Event()

    async with AsyncClient(settings, retry=NO_RETRIES) as client:

        async def worker(face: Face) -> None:
            while not over.is_set():
                try:
                    answer = await client.predict(model, {INPUT: image}, face=face, timeout=10)
                    found.versions[answer.version] += 1
                    found.faces[face] += 1
                except PenstockError as error:
                    found.failures.append(f"{face}: {error!r}")
                # Constant, and not all that the machine can give: the services need some of it to start.
                await asyncio.sleep(0.015)

        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(worker("rest" if number % 2 else "grpc"))
            try:
                yield found
            finally:
                over.set()
