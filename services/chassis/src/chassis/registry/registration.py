"""Keeps endpoints registered: register, renew at a third of the lease, register again when it is lost."""

import asyncio
import random
from collections.abc import Callable

from chassis import errors
from chassis.clock import Clock, SystemClock
from chassis.registry.port import Endpoint, Lease, Registrar
from chassis.telemetry.logs import get_logger

_FIRST_RETRY = 0.2  # seconds; doubled with each failure up to a third of the lease


class KeepRegistered:
    """One endpoint's registration. `host.add_task("register", keep.run)`, `host.on_drain(keep.deregister)`.

    Failures are retried with jitter, so that replicas do not all come back to a restarted provider at once.
    """

    def __init__(
        self,
        registrar: Registrar,
        endpoint: Endpoint,
        *,
        ttl: float,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._registrar = registrar
        self._endpoint = endpoint
        self._ttl = ttl
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._lease: Lease | None = None
        self._failures = 0
        self._ended = False
        self._lock = asyncio.Lock()
        self._log = get_logger("penstock.registration")

    @property
    def registered(self) -> bool:
        """Whether a lease is held, as far as is known here."""
        return self._lease is not None

    async def run(self) -> None:
        """Registers and renews until deregistered or cancelled."""
        while not self._ended:
            await self._clock.sleep(await self.keep_once())

    async def keep_once(self) -> float:
        """One step: register without a lease, renew with one. Gives the seconds until the next."""
        async with self._lock:
            if self._ended:
                return 0.0
            try:
                await self._step()
            except errors.Error as error:
                return self._failed(error)
            if self._failures:
                self._log.info("registered again", endpoint=self._endpoint.key)
            self._failures = 0
            assert self._lease is not None
            return self._lease.ttl / 3

    async def deregister(self) -> None:
        """Releases the lease and stops for good. A provider that cannot be reached lets the lease run out."""
        self._ended = True
        async with self._lock:
            lease, self._lease = self._lease, None
            if lease is None:
                return
            try:
                await self._registrar.deregister(lease)
            except errors.Error as error:
                self._log.warning("could not deregister, the lease will run out", error=str(error))

    async def _step(self) -> None:
        if self._lease is not None:
            try:
                self._lease = await self._registrar.renew(self._lease)
                return
            except errors.NotFound:
                self._log.warning("lease lost, registering again", endpoint=self._endpoint.key)
                self._lease = None
        self._lease = await self._registrar.register(self._endpoint, self._ttl)
        self._log.info("registered", endpoint=self._endpoint.key, ttl=self._lease.ttl)

    def _failed(self, error: errors.Error) -> float:
        """The lease is kept: the provider may still hold it when it can be reached again."""
        self._failures += 1
        most = min(self._ttl / 3, _FIRST_RETRY * 2.0 ** min(self._failures - 1, 16))
        log = self._log.warning if self._failures in (1, 10, 100) else self._log.debug
        log("the route provider cannot be reached", error=str(error), failures=self._failures)
        return most * (0.5 + self._jitter() / 2)
