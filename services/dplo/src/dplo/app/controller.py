"""Keeps every deployment under reconciliation: one keeper task each, woken by changes and by time."""

import asyncio
import random
from collections.abc import Callable

from chassis.clock import Clock

from dplo.app.ports import StateStore
from dplo.app.reconcile import Reconciler, Result
from dplo.app.retry import Backoff
from dplo.domain.names import DeploymentName

Report = Callable[[str, BaseException], None]


class Controller:
    """Level-triggered: a wake-up only says "look", never what happened."""

    def __init__(
        self,
        reconciler: Reconciler,
        store: StateStore,
        clock: Clock,
        *,
        report: Report,
        backoff: Backoff | None = None,
        concurrency: int = 16,
    ) -> None:
        self._reconciler = reconciler
        self._store = store
        self._clock = clock
        self._report = report
        self._backoff = backoff or Backoff()
        self._room = asyncio.Semaphore(concurrency)
        self._wakes: dict[DeploymentName, asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keeps all deployments that are stored, and each that is woken, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                after = ""
                while batch := await self._store.list(None, after, 500):
                    for deployment in batch:
                        self.wake(deployment.name)
                    after = str(batch[-1].name)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def wake(self, name: DeploymentName) -> None:
        """Looks at a deployment soon."""
        event = self._wakes.get(name)
        if event is not None:
            event.set()
        elif self._group is not None:
            self._wakes[name] = asyncio.Event()
            self._group.create_task(self._keep(name), name=f"keep {name}")

    def wake_all(self) -> None:
        """Looks at every deployment soon."""
        for event in self._wakes.values():
            event.set()

    async def _keep(self, name: DeploymentName) -> None:
        wake = self._wakes[name]
        failures = 0
        while True:
            wake.clear()
            try:
                async with self._room:
                    result = await self._reconciler.reconcile_once(name)
                failures = 0
            except Exception as error:  # noqa: BLE001  one deployment's fault must not stop the others
                failures += 1
                self._report(str(name), error)
                result = Result(self._backoff.delay(failures))
            if result.gone and not wake.is_set():
                del self._wakes[name]
                return
            await self._rest(wake, result.delay)

    async def _rest(self, wake: asyncio.Event, delay: float) -> None:
        """Waits, but not longer than until somebody wakes it; jitter keeps many from moving as one."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.ensure_future(self._clock.sleep(delay * random.uniform(0.9, 1.1)))
        waker = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waker.cancel()
