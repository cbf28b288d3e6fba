"""Stores that forget everything at the end of the process; for tests, and for a gateway that shall keep
nothing.
"""

from collections.abc import Sequence

from chassis import errors

from aigw.domain.endpoint import Registration
from aigw.domain.route import Route, Snapshot


class MemoryRouteStore:
    """`aigw.app.ports.RouteStore` in a dictionary."""

    def __init__(self) -> None:
        self._heads: dict[str, Route] = {}
        self._snapshots: dict[str, list[Snapshot]] = {}

    async def load(self) -> Sequence[Route]:
        """The newest generation of every route."""
        return list(self._heads.values())

    async def append(self, snapshot: Snapshot) -> None:
        """Keeps the next generation."""
        route = snapshot.route
        head = self._heads.get(route.name)
        expected = (head.uid, head.generation + 1) if head is not None else (route.uid, 1)
        if (route.uid, route.generation) != expected:
            raise lost_race(route)
        self._heads[route.name] = route
        self._snapshots.setdefault(route.uid, []).append(snapshot)

    async def remove(self, route: Route) -> None:
        """Removes a route."""
        if self._heads.get(route.name) != route:
            raise lost_race(route)
        del self._heads[route.name]

    async def history(self, uid: str, *, before: int, limit: int) -> Sequence[Snapshot]:
        """Snapshots, newest first."""
        older = [found for found in self._snapshots.get(uid, []) if found.route.generation < before]
        return older[::-1][:limit]


class MemoryEndpointStore:
    """`aigw.app.ports.EndpointStore` in a dictionary."""

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}

    async def load(self) -> Sequence[Registration]:
        """All registrations."""
        return list(self._registrations.values())

    async def put(self, registration: Registration) -> None:
        """Keeps a registration."""
        self._registrations[registration.endpoint.name] = registration

    async def delete(self, name: str) -> None:
        """Forgets a registration."""
        self._registrations.pop(name, None)


def lost_race(route: Route) -> errors.Aborted:
    """Somebody else wrote the same generation first."""
    return errors.Aborted(
        f"the route {route.name} was changed by somebody else at the same time; "
        "read it again and decide anew",
        reason="ROUTE_CHANGED",
        metadata={"route": route.name},
    )
