"""Virtual time: a `Clock` that only moves when told, and wakes exactly those whose time has come."""

import asyncio
import heapq
import itertools


class FakeClock:
    """A `chassis.clock.Clock` for tests.

    `advance` moves time in order through every sleep that falls due, letting the tasks run in between, so
    that a loop which sleeps ten times in ten seconds runs ten times.
    """

    def __init__(self, *, time: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._time = time
        self._monotonic = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Seconds on the monotonic clock."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock was advanced so far; zero lets others run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many tasks wait for time to pass."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Lets time pass."""
        target = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            self._move(max(due, self._monotonic))
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._move(target)
        await self.settle()

    async def settle(self, rounds: int = 20) -> None:
        """Lets tasks that are ready run; no time passes."""
        for _ in range(rounds):
            await asyncio.sleep(0)

    def _move(self, monotonic: float) -> None:
        self._time += monotonic - self._monotonic
        self._monotonic = monotonic
