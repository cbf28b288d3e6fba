"""The routes as declared: checked, versioned by generation, kept in the store, told to whoever routes by
them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from chassis import errors
from chassis.clock import Clock

from aigw.app.ports import RouteStore
from aigw.domain.names import route_name
from aigw.domain.route import Change, Route, Snapshot, check_route, set_weights

Listener = Callable[[str, Route | None], None]
Edit = Callable[[Route], Route]


class RouteCatalog:
    """All declared routes. Reads are from memory; writes go to the store first and then into force at once.

    One lock orders the writes, so that a read-modify-write cannot lose another's change; etags order those of
    different callers.
    """

    def __init__(self, store: RouteStore, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._routes: dict[str, Route] = {}
        self._listeners: list[Listener] = []
        self._writing = asyncio.Lock()

    def on_change(self, listener: Listener) -> None:
        """Calls the listener with the model key and the route (None when removed), before the change is
        answered.
        """
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads all routes from the store."""
        for route in await self._store.load():
            self._put(route)

    def get(self, project: str, route: str) -> Route:
        """A route, or NotFound."""
        found = self._routes.get(f"{project}/{route}")
        if found is None:
            raise self._missing(project, route)
        return found

    def find(self, key: str) -> Route | None:
        """The route of `project/model`, or None."""
        return self._routes.get(key)

    def select(self, project: str = "") -> list[Route]:
        """The routes of a project, or all, by name."""
        routes = [route for route in self._routes.values() if project in ("", route.project)]
        return sorted(routes, key=lambda route: route.name)

    async def create(self, route: Route, change: Change, *, validate_only: bool = False) -> Route:
        """Declares a route that does not exist."""
        check_route(route)
        async with self._writing:
            if route.key in self._routes:
                raise errors.AlreadyExists(
                    f"the route {route.name} exists; change it with UpdateRoute or SetWeights",
                    reason="ROUTE_EXISTS",
                    metadata={"route": route.name},
                )
            return await self._create(route, change, validate_only=validate_only)

    async def update(
        self,
        project: str,
        route: str,
        edit: Edit,
        change: Change,
        *,
        etag: str = "",
        missing: Route | None = None,
        validate_only: bool = False,
    ) -> Route:
        """Changes a route by a pure function of what it is now. A change that changes nothing makes no
        generation.

        `missing` is what to create if there is no such route; None means that this is an error.
        """
        async with self._writing:
            current = self._routes.get(f"{project}/{route}")
            if current is None:
                if missing is None:
                    raise self._missing(project, route)
                check_route(missing)
                return await self._create(missing, change, validate_only=validate_only)
            self._check_etag(current, etag)
            edited = edit(current)
            check_route(edited)
            if edited.same_desire(current):
                return current
            now = self._clock.time()
            following = replace(
                current,
                targets=edited.targets,
                policy=edited.policy,
                annotations=edited.annotations,
                generation=current.generation + 1,
                update_time=now,
                updater=change.creator,
            )
            return await self._commit(following, change, validate_only=validate_only)

    async def set_weights(
        self,
        project: str,
        route: str,
        weights: Mapping[str, int],
        change: Change,
        *,
        etag: str = "",
        prune: bool = False,
    ) -> Route:
        """Sets all weights at once."""

        def edit(current: Route) -> Route:
            return replace(current, targets=set_weights(current.targets, weights, prune=prune))

        return await self.update(project, route, edit, change, etag=etag)

    async def delete(self, project: str, route: str, *, etag: str = "", allow_missing: bool = False) -> None:
        """Removes a route."""
        async with self._writing:
            current = self._routes.get(f"{project}/{route}")
            if current is None:
                if allow_missing:
                    return
                raise self._missing(project, route)
            self._check_etag(current, etag)
            await self._store.remove(current)
            del self._routes[current.key]
            self._tell(current.key, None)

    async def history(self, project: str, route: str, *, before: int, limit: int) -> list[Snapshot]:
        """The snapshots of a route with a generation below `before`, newest first."""
        return list(await self._store.history(self.get(project, route).uid, before=before, limit=limit))

    async def _create(self, route: Route, change: Change, *, validate_only: bool) -> Route:
        now = self._clock.time()
        new = replace(
            route, uid=self._new_id(), generation=1, create_time=now, update_time=now, updater=change.creator
        )
        return await self._commit(new, change, validate_only=validate_only)

    async def _commit(self, route: Route, change: Change, *, validate_only: bool) -> Route:
        if validate_only:
            return route
        await self._store.append(Snapshot(route, change))
        self._put(route)
        return route

    def _put(self, route: Route) -> None:
        self._routes[route.key] = route
        self._tell(route.key, route)

    def _tell(self, key: str, route: Route | None) -> None:
        for listener in self._listeners:
            listener(key, route)

    def _missing(self, project: str, route: str) -> errors.NotFound:
        known = ", ".join(found.route for found in self.select(project)) or "none"
        return errors.NotFound(
            f"there is no route {route_name(project, route)}; routes of this project: {known}",
            reason="ROUTE_NOT_FOUND",
            metadata={"route": route_name(project, route)},
        )

    @staticmethod
    def _check_etag(route: Route, etag: str) -> None:
        if etag and etag != route.etag:
            raise errors.Aborted(
                f"the route {route.name} has changed since it was read: its etag is {route.etag}, "
                f"not {etag}; read it again and decide anew",
                reason="ETAG_MISMATCH",
                metadata={"route": route.name, "etag": route.etag, "generation": str(route.generation)},
            )
