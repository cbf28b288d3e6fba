"""What any store of the gateway must do, shown on each backend."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aigw.adapters.memory import MemoryEndpointStore, MemoryRouteStore
from aigw.adapters.sql.database import open_database
from aigw.adapters.sql.stores import SqlEndpointStore, SqlRouteStore
from aigw.app.ports import EndpointStore, RouteStore
from aigw.domain.endpoint import Endpoint, Registration
from aigw.domain.route import Change, EjectionPolicy, RetryPolicy, Route, RoutePolicy, Snapshot, Target
from chassis import errors
from chassis.errors import Code

ROUTE = Route(
    "digits",
    "classifier",
    (Target("1", 9, {"zone": "a"}), Target("2", 1)),
    RoutePolicy(
        timeout=2.5,
        retry=RetryPolicy(2, (Code.UNAVAILABLE, Code.ABORTED), 0.5, 10.0, 3.0),
        ejection=EjectionPolicy(4, 2.0, 8.0, disabled=True),
        divert_unready=False,
    ),
    {"commit": "abc"},
    uid="u1",
    generation=1,
    create_time=1.5,
    update_time=2.5,
    updater="ann",
)
REGISTRATION = Registration(
    Endpoint("digits", "classifier", "a", "1", "h:1", "h:2", "sha256:" + "0" * 64, {"zone": "a"}),
    lease_id="lease",
    ttl=9.0,
    expires=0.0,
    register_time=5.5,
)


@pytest.fixture(params=["memory", "sqlite"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[RouteStore, EndpointStore]]:
    if request.param == "memory":
        yield MemoryRouteStore(), MemoryEndpointStore()
        return
    async with open_database(tmp_path / "state" / "aigw.db") as engine:
        yield SqlRouteStore(engine), SqlEndpointStore(engine)


def _snapshot(generation: int, **changed: object) -> Snapshot:
    return Snapshot(
        replace(ROUTE, generation=generation, **changed), Change("ann", f"step {generation}", "t1")
    )  # type: ignore[arg-type]


async def test_a_route_is_read_as_it_was_kept(stores) -> None:
    routes, _ = stores
    await routes.append(_snapshot(1))
    assert list(await routes.load()) == [ROUTE]


async def test_only_the_newest_generation_is_loaded_and_all_are_history(stores) -> None:
    routes, _ = stores
    for generation in (1, 2, 3):
        await routes.append(_snapshot(generation))
    assert [route.generation for route in await routes.load()] == [3]
    assert list(await routes.history("u1", before=99, limit=2)) == [_snapshot(3), _snapshot(2)]
    assert [s.route.generation for s in await routes.history("u1", before=2, limit=9)] == [1]


@pytest.mark.parametrize("generation", [1, 2, 4], ids=["first again", "same again", "gap"])
async def test_a_generation_that_is_not_the_next_one_loses(stores, generation) -> None:
    routes, _ = stores
    await routes.append(_snapshot(1))
    await routes.append(_snapshot(2))
    with pytest.raises(errors.Aborted, match="changed by somebody else"):
        await routes.append(_snapshot(generation))
    assert [route.generation for route in await routes.load()] == [2]


async def test_a_second_route_of_the_same_name_loses(stores) -> None:
    routes, _ = stores
    await routes.append(_snapshot(1))
    with pytest.raises(errors.Aborted):
        await routes.append(_snapshot(1, uid="u2"))


async def test_a_removed_route_may_be_made_anew_and_only_its_present_generation_removed(stores) -> None:
    routes, _ = stores
    await routes.append(_snapshot(1))
    await routes.append(_snapshot(2))
    with pytest.raises(errors.Aborted):
        await routes.remove(ROUTE)
    await routes.remove(_snapshot(2).route)
    assert list(await routes.load()) == []
    await routes.append(_snapshot(1, uid="u2"))
    assert [route.uid for route in await routes.load()] == ["u2"]


async def test_registrations_are_kept_replaced_and_forgotten(stores) -> None:
    _, endpoints = stores
    await endpoints.put(replace(REGISTRATION, lease_id="old"))
    draining = replace(REGISTRATION, drain_time=7.0)
    await endpoints.put(draining)
    assert list(await endpoints.load()) == [draining]
    await endpoints.delete(REGISTRATION.endpoint.name)
    await endpoints.delete(REGISTRATION.endpoint.name)
    assert list(await endpoints.load()) == []
