"""Time as a dependency: wall clock for timestamps, monotonic clock for durations, sleep for waiting."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What needs time takes one of these, so that tests run on virtual time."""

    def time(self) -> float:
        """Seconds since the epoch; for timestamps only."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; for durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class SystemClock:
    """The real clock."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on the system's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits on the running loop."""
        await asyncio.sleep(seconds)
