"""The gateway's stores in SQL."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from aigw.adapters.memory import lost_race
from aigw.adapters.sql.database import translated
from aigw.adapters.sql.documents import endpoint_document, read_endpoint, read_route, route_document
from aigw.adapters.sql.schema import endpoints, route_snapshots, routes
from aigw.domain.endpoint import Registration
from aigw.domain.route import Change, Route, Snapshot


class SqlRouteStore:
    """`aigw.app.ports.RouteStore`: a head per route, and every generation it has had."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def load(self) -> Sequence[Route]:
        """The newest generation of every route."""
        query = select(route_snapshots.c.document).join(
            routes,
            (routes.c.uid == route_snapshots.c.uid) & (routes.c.generation == route_snapshots.c.generation),
        )
        with translated():
            async with self._engine.connect() as connection:
                return [read_route(document) for (document,) in await connection.execute(query)]

    async def append(self, snapshot: Snapshot) -> None:
        """Keeps the next generation, if it is the next one."""
        route = snapshot.route
        with translated():
            try:
                async with self._engine.begin() as connection:
                    if route.generation == 1:
                        await connection.execute(
                            insert(routes).values(name=route.name, uid=route.uid, generation=1)
                        )
                    else:
                        moved = await connection.execute(
                            update(routes)
                            .where(routes.c.uid == route.uid, routes.c.generation == route.generation - 1)
                            .values(generation=route.generation)
                        )
                        if moved.rowcount != 1:
                            raise lost_race(route)
                    await connection.execute(insert(route_snapshots).values(_snapshot_row(snapshot)))
            except IntegrityError as error:
                raise lost_race(route) from error

    async def remove(self, route: Route) -> None:
        """Removes a route's head; its snapshots stay."""
        with translated():
            async with self._engine.begin() as connection:
                removed = await connection.execute(
                    delete(routes).where(routes.c.uid == route.uid, routes.c.generation == route.generation)
                )
                if removed.rowcount != 1:
                    raise lost_race(route)

    async def history(self, uid: str, *, before: int, limit: int) -> Sequence[Snapshot]:
        """Snapshots, newest first."""
        table = route_snapshots
        query = (
            select(table.c.document, table.c.creator, table.c.reason, table.c.trace_id)
            .where(table.c.uid == uid, table.c.generation < before)
            .order_by(table.c.generation.desc())
            .limit(limit)
        )
        with translated():
            async with self._engine.connect() as connection:
                return [
                    Snapshot(read_route(document), Change(creator, reason, trace_id))
                    for document, creator, reason, trace_id in await connection.execute(query)
                ]


class SqlEndpointStore:
    """`aigw.app.ports.EndpointStore`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def load(self) -> Sequence[Registration]:
        """All registrations; `expires` is for the caller to set."""
        with translated():
            async with self._engine.connect() as connection:
                rows = await connection.execute(select(endpoints))
                return [
                    Registration(
                        endpoint=read_endpoint(row.document),
                        lease_id=row.lease_id,
                        ttl=row.ttl,
                        expires=0.0,
                        register_time=row.register_time,
                        drain_time=row.drain_time,
                    )
                    for row in rows
                ]

    async def put(self, registration: Registration) -> None:
        """Keeps a registration in place of one of the same name."""
        name = registration.endpoint.name
        with translated():
            async with self._engine.begin() as connection:
                await connection.execute(delete(endpoints).where(endpoints.c.name == name))
                await connection.execute(
                    insert(endpoints).values(
                        name=name,
                        document=endpoint_document(registration.endpoint),
                        lease_id=registration.lease_id,
                        ttl=registration.ttl,
                        register_time=registration.register_time,
                        drain_time=registration.drain_time,
                    )
                )

    async def delete(self, name: str) -> None:
        """Forgets a registration."""
        with translated():
            async with self._engine.begin() as connection:
                await connection.execute(delete(endpoints).where(endpoints.c.name == name))


def _snapshot_row(snapshot: Snapshot) -> dict[str, object]:
    route, change = snapshot.route, snapshot.change
    return {
        "uid": route.uid,
        "generation": route.generation,
        "name": route.name,
        "document": route_document(route),
        "creator": change.creator,
        "reason": change.reason,
        "trace_id": change.trace_id,
        "create_time": route.update_time,
    }
