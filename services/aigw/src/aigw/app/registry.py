"""The embedded route provider: endpoints under leases, which run out unless renewed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from chassis import errors
from chassis.clock import Clock

from aigw.app.event_log import EventLog
from aigw.app.ports import EndpointStore
from aigw.domain.endpoint import Endpoint, Registration


class EventKind(Enum):
    """What happened to a registration."""

    PUT = "put"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """One change of the registry."""

    kind: EventKind
    registration: Registration


Listener = Callable[[RegistryEvent], None]
FORGET_AGAIN = 1.0
"""Seconds until the store is asked again to forget what it could not."""


class EndpointRegistry:
    """All registered endpoints.

    Who joins is kept in the store before it is used; who leaves is dropped from memory before it is dropped
    from the store: a failing disk never keeps a dead replica in rotation. Renewals only touch memory.
    """

    def __init__(
        self, store: EndpointStore, *, clock: Clock, new_id: Callable[[], str], history: int = 4096
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._registrations: dict[str, Registration] = {}
        self._listeners: list[Listener] = []
        self._writing = asyncio.Lock()
        self._sooner = asyncio.Event()
        self._unforgotten: list[str] = []
        self.events: EventLog[RegistryEvent] = EventLog(epoch=new_id(), history=history)

    def on_change(self, listener: Listener) -> None:
        """Calls the listener at each change, before the change is answered."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Takes over what an earlier process knew; each lease gets a whole ttl to be renewed in."""
        now = self._clock.monotonic()
        for registration in await self._store.load():
            self._put(replace(registration, expires=now + registration.ttl))

    async def register(self, endpoint: Endpoint, ttl: float) -> Registration:
        """Puts an endpoint under a new lease, in place of what had its name."""
        async with self._writing:
            registration = Registration(
                endpoint=endpoint,
                lease_id=self._new_id(),
                ttl=ttl,
                expires=self._clock.monotonic() + ttl,
                register_time=self._clock.time(),
            )
            await self._store.put(registration)
            # The lease runs from the end of the write, so that a slow disk does not eat into it.
            registration = replace(registration, expires=self._clock.monotonic() + ttl)
            self._put(registration)
            return registration

    def renew(self, name: str, lease_id: str) -> Registration:
        """Lets a lease run from now on. NotFound if it is not held any more."""
        current = self._registrations.get(name)
        if current is None or current.lease_id != lease_id:
            why = "is not registered" if current is None else "was registered anew by another process"
            raise errors.NotFound(
                f"{name} {why}; the lease is lost: register again",
                reason="LEASE_NOT_FOUND",
                metadata={"endpoint": name},
            )
        renewed = replace(current, expires=self._clock.monotonic() + current.ttl)
        self._registrations[name] = renewed
        return renewed

    async def deregister(self, name: str, lease_id: str = "") -> None:
        """Removes an endpoint; only under the given lease, if one is given. No error if there is nothing to
        remove.
        """
        current = self._registrations.get(name)
        if current is None or lease_id not in ("", current.lease_id):
            return
        self._remove(current)
        await self._forget([name])

    async def drain(self, name: str, lease_id: str = "") -> Registration:
        """Gives an endpoint no new calls; its lease goes on."""
        current = self._registrations.get(name)
        if current is None or lease_id not in ("", current.lease_id):
            raise errors.NotFound(
                f"{name} is not registered" + (" under this lease" if current else ""),
                reason="ENDPOINT_NOT_FOUND",
                metadata={"endpoint": name},
            )
        if not current.draining:
            current = replace(current, drain_time=self._clock.time())
            self._put(current)
            async with self._writing:
                kept = self._registrations.get(name)
                if kept is not None and kept.lease_id == current.lease_id:
                    await self._store.put(kept)
        return current

    def get(self, name: str) -> Registration:
        """A registration, or NotFound."""
        found = self._registrations.get(name)
        if found is None:
            raise errors.NotFound(
                f"{name} is not registered", reason="ENDPOINT_NOT_FOUND", metadata={"endpoint": name}
            )
        return found

    def select(self, project: str = "", model: str = "", version: str = "") -> list[Registration]:
        """Registrations by name; empty arguments stand for all."""
        found = [
            registration
            for registration in self._registrations.values()
            if project in ("", registration.endpoint.project)
            and model in ("", registration.endpoint.model)
            and version in ("", registration.endpoint.version)
        ]
        return sorted(found, key=lambda registration: registration.endpoint.name)

    async def watch(
        self, token: str, project: str = "", model: str = ""
    ) -> AsyncIterator[tuple[RegistryEvent | None, str]]:
        """What is there, then changes; see `EventLog.follow`."""

        def snapshot() -> list[RegistryEvent]:
            return [RegistryEvent(EventKind.PUT, found) for found in self.select(project, model)]

        async for event, resume in self.events.follow(token, snapshot):
            if event is not None:
                endpoint = event.registration.endpoint
                if project not in ("", endpoint.project) or model not in ("", endpoint.model):
                    continue
            yield event, resume

    async def expire_once(self) -> float | None:
        """Drops whose lease has run out; seconds until the next one may, None if there is none."""
        now = self._clock.monotonic()
        over = [found for found in self._registrations.values() if found.expires <= now]
        for registration in over:
            self._remove(registration)
        self._unforgotten += [registration.endpoint.name for registration in over]
        pauses = [found.expires for found in self._registrations.values()]
        try:
            await self._forget(self._unforgotten)
        except errors.Unavailable:  # they are out of rotation; only the store does not know yet
            pauses.append(now + FORGET_AGAIN)
        else:
            self._unforgotten.clear()
        return max(0.0, min(pauses) - self._clock.monotonic()) if pauses else None

    async def run_expiry(self) -> None:
        """Drops endpoints as their leases run out, for ever."""
        while True:
            self._sooner.clear()
            pause = await self.expire_once()
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._sooner.wait())]
            if pause is not None:
                waits.append(asyncio.create_task(self._clock.sleep(pause)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _forget(self, names: list[str]) -> None:
        if not names:
            return
        async with self._writing:
            for name in names:
                if name not in self._registrations:
                    await self._store.delete(name)

    def _put(self, registration: Registration) -> None:
        self._registrations[registration.endpoint.name] = registration
        self._sooner.set()
        self._tell(RegistryEvent(EventKind.PUT, registration))

    def _remove(self, registration: Registration) -> None:
        if self._registrations.get(registration.endpoint.name) is not None:
            del self._registrations[registration.endpoint.name]
            self._tell(RegistryEvent(EventKind.REMOVED, registration))

    def _tell(self, event: RegistryEvent) -> None:
        for listener in self._listeners:
            listener(event)
        self.events.append(event)
