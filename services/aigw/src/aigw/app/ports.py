"""What the application needs from outside, as small protocols. In-memory implementations:
`aigw.adapters.memory`.
"""

from collections.abc import Sequence
from typing import Protocol

from aigw.domain.endpoint import Registration
from aigw.domain.route import Route, Snapshot
from aigw.domain.upstream import HttpUpstream


class RouteStore(Protocol):
    """Keeps routes as immutable snapshots, one per generation."""

    async def load(self) -> Sequence[Route]:
        """The newest generation of every route that is not removed."""
        ...

    async def append(self, snapshot: Snapshot) -> None:
        """Keeps the next generation of a route. Raises Aborted if there already is one of that number."""
        ...

    async def remove(self, route: Route) -> None:
        """Removes a route. Raises Aborted if the store's newest generation is another one."""
        ...

    async def history(self, uid: str, *, before: int, limit: int) -> Sequence[Snapshot]:
        """Snapshots of a route with a generation below `before`, newest first."""
        ...


class EndpointStore(Protocol):
    """Keeps registrations over a restart. Renewals are not kept: a restarted gateway gives each lease a
    whole ttl.
    """

    async def load(self) -> Sequence[Registration]:
        """All registrations; their `expires` means nothing."""
        ...

    async def put(self, registration: Registration) -> None:
        """Keeps a registration, replacing one of the same name."""
        ...

    async def delete(self, name: str) -> None:
        """Forgets a registration; no error if there is none."""
        ...


class AccessSink(Protocol):
    """Takes finished lines of the access log. Called in a thread, one call at a time."""

    def write(self, lines: bytes) -> None:
        """Writes whole lines, each ended by a newline."""
        ...

    def close(self) -> None:
        """Flushes and closes."""
        ...


class HttpConnector(Protocol):
    """Opens HTTP upstreams. `connect` does no I/O: the first call does."""

    def connect(self, address: str) -> HttpUpstream:
        """An upstream for a `host:port` address."""
        ...
