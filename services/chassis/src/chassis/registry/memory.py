"""A route provider inside one process: leases on an injected clock, a bounded history for resuming watches.

Used by tests and by a process that both serves and routes. Expiry is evaluated when somebody looks and by
`expire`, so nothing here needs a background task.
"""

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from chassis import errors
from chassis.registry.port import Endpoint, EndpointEvent, EventKind, Lease

_Key = tuple[str, str, str]


@dataclass
class _Entry:
    endpoint: Endpoint
    lease: Lease
    expires: float


class MemoryRegistry:
    """`Registrar` and `EndpointWatcher` over a dictionary.

    `history` bounds how many changes a watch can resume over; older tokens get a RESET and a snapshot.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
        history: int = 1024,
    ) -> None:
        self._monotonic = monotonic
        self._new_id = new_id
        self._epoch = new_id()
        self._entries: dict[_Key, _Entry] = {}
        self._changes: deque[tuple[int, EventKind, Endpoint]] = deque(maxlen=history)
        self._revisions = itertools.count(1)
        self._revision = 0
        self._changed = asyncio.Event()

    async def register(self, endpoint: Endpoint, ttl: float) -> Lease:
        """Announces an endpoint under a new lease."""
        if ttl <= 0:
            raise errors.InvalidArgument(f"a lease needs a ttl above 0 s, not {ttl}", reason="TTL_INVALID")
        self.expire()
        name = f"projects/{endpoint.project}/models/{endpoint.model}/endpoints/{endpoint.instance_id}"
        lease = Lease(name, self._new_id(), ttl)
        previous = self._entries.get(endpoint.key)
        self._entries[endpoint.key] = _Entry(endpoint, lease, self._monotonic() + ttl)
        if previous is None or previous.endpoint != endpoint:
            self._record(EventKind.PUT, endpoint)
        return lease

    async def renew(self, lease: Lease) -> Lease:
        """Extends a lease by its ttl."""
        self.expire()
        entry = self._find(lease)
        if entry is None:
            raise errors.NotFound(
                f"the lease of {lease.name} is lost; register again",
                reason="LEASE_LOST",
                metadata={"endpoint": lease.name},
            )
        entry.expires = self._monotonic() + lease.ttl
        return lease

    async def deregister(self, lease: Lease) -> None:
        """Releases a lease."""
        self.expire()
        entry = self._find(lease)
        if entry is not None:
            del self._entries[entry.endpoint.key]
            self._record(EventKind.REMOVED, entry.endpoint)

    def expire(self) -> None:
        """Removes endpoints whose leases ran out."""
        now = self._monotonic()
        for key, entry in list(self._entries.items()):
            if entry.expires <= now:
                del self._entries[key]
                self._record(EventKind.REMOVED, entry.endpoint)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What is announced now."""
        self.expire()
        return tuple(entry.endpoint for entry in self._entries.values())

    async def watch(
        self, *, project: str | None = None, resume_token: str = ""
    ) -> AsyncIterator[EndpointEvent]:
        """See `EndpointWatcher.watch`."""
        self.expire()
        seen = self._resumable(resume_token)
        if seen is None:
            seen = self._revision
            token = self._token(seen)
            snapshot = [e.endpoint for e in self._entries.values() if project in (None, e.endpoint.project)]
            yield EndpointEvent(EventKind.RESET, None, "")
            for endpoint in snapshot:
                yield EndpointEvent(EventKind.PUT, endpoint, "")
            yield EndpointEvent(EventKind.SYNCED, None, token)
        while True:
            changed = self._changed
            if self._changes and self._changes[0][0] > seen + 1:
                # The watcher was slower than the history is long: it starts over rather than miss a change.
                async for event in self.watch(project=project):
                    yield event
            for revision, kind, endpoint in [c for c in self._changes if c[0] > seen]:
                seen = revision
                if project in (None, endpoint.project):
                    yield EndpointEvent(kind, endpoint, self._token(revision))
            if seen == self._revision:
                await changed.wait()

    def _find(self, lease: Lease) -> _Entry | None:
        return next((entry for entry in self._entries.values() if entry.lease.id == lease.id), None)

    def _record(self, kind: EventKind, endpoint: Endpoint) -> None:
        self._revision = next(self._revisions)
        self._changes.append((self._revision, kind, endpoint))
        self._changed.set()
        self._changed = asyncio.Event()

    def _token(self, revision: int) -> str:
        return f"{self._epoch}.{revision}"

    def _resumable(self, token: str) -> int | None:
        epoch, _, revision = token.rpartition(".")
        if epoch != self._epoch or not revision.isdigit():
            return None
        seen = int(revision)
        if seen > self._revision or (
            seen < self._revision and (not self._changes or self._changes[0][0] > seen + 1)
        ):
            return None
        return seen
