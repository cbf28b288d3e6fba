"""Routes are declared, changed by etag, versioned, and told to the table before the change is answered."""

from dataclasses import replace

import pytest
from aigw.app.catalog import RouteCatalog
from aigw.domain.route import Change, Route, Target
from chassis import errors


def _heavier(route: Route) -> Route:
    return replace(route, targets=(Target("1", 1), Target("2", 1)))


async def test_a_created_route_is_in_force_when_its_call_answers(gateway) -> None:
    route = await gateway.route(("1", 1))
    assert gateway.router.table.find("digits/classifier").route is route
    assert (route.generation, route.uid != "", route.create_time) == (1, True, gateway.clock.time())


async def test_a_route_is_created_once(gateway) -> None:
    await gateway.route(("1", 1))
    with pytest.raises(errors.AlreadyExists, match="projects/digits/routes/classifier"):
        await gateway.route(("2", 1))


async def test_every_change_makes_a_generation_and_a_new_etag(gateway) -> None:
    first = await gateway.route(("1", 1))
    second = await gateway.catalog.update("digits", "classifier", _heavier, Change("ann", "trial"))
    assert (second.generation, second.uid, second.updater) == (2, first.uid, "ann")
    assert second.etag != first.etag
    history = await gateway.catalog.history("digits", "classifier", before=99, limit=9)
    assert [(s.route.generation, s.change.reason) for s in history] == [(2, "trial"), (1, "")]


async def test_a_change_that_changes_nothing_makes_no_generation(gateway) -> None:
    first = await gateway.route(("1", 1))
    assert await gateway.catalog.update("digits", "classifier", lambda route: route, Change()) is first


async def test_an_old_etag_is_refused_and_the_present_one_told(gateway) -> None:
    old = await gateway.route(("1", 1))
    new = await gateway.catalog.update("digits", "classifier", _heavier, Change(), etag=old.etag)
    with pytest.raises(errors.Aborted) as caught:
        await gateway.catalog.set_weights("digits", "classifier", {"1": 1}, Change(), etag=old.etag)
    assert caught.value.metadata["etag"] == new.etag
    with pytest.raises(errors.Aborted):
        await gateway.catalog.delete("digits", "classifier", etag=old.etag)
    assert gateway.catalog.get("digits", "classifier") is new


async def test_an_invalid_change_changes_nothing(gateway) -> None:
    route = await gateway.route(("1", 1))
    with pytest.raises(errors.InvalidArgument, match="all weights are 0"):
        await gateway.catalog.set_weights("digits", "classifier", {"1": 0}, Change())
    assert gateway.catalog.get("digits", "classifier") is route


async def test_validate_only_answers_what_would_be_and_changes_nothing(gateway) -> None:
    wanted = Route("digits", "classifier", (Target("1", 1),))
    assert (await gateway.catalog.create(wanted, Change(), validate_only=True)).generation == 1
    assert gateway.catalog.find("digits/classifier") is None
    await gateway.route(("1", 1))
    changed = await gateway.catalog.update("digits", "classifier", _heavier, Change(), validate_only=True)
    assert (changed.generation, gateway.catalog.get("digits", "classifier").generation) == (2, 1)


async def test_a_missing_route_is_told_with_those_that_exist(gateway) -> None:
    await gateway.route(("1", 1))
    with pytest.raises(errors.NotFound, match="routes of this project: classifier"):
        gateway.catalog.get("digits", "clasifier")
    with pytest.raises(errors.NotFound):
        await gateway.catalog.delete("digits", "other")
    await gateway.catalog.delete("digits", "other", allow_missing=True)


async def test_update_may_create_what_is_missing(gateway) -> None:
    wanted = Route("digits", "classifier", (Target("1", 1),))
    made = await gateway.catalog.update("digits", "classifier", _heavier, Change(), missing=wanted)
    assert (made.generation, made.targets) == (1, wanted.targets)


async def test_a_deleted_route_leaves_the_table_and_a_new_one_starts_over(gateway) -> None:
    first = await gateway.route(("1", 1))
    await gateway.catalog.delete("digits", "classifier", etag=first.etag)
    assert gateway.router.table.find("digits/classifier") is None
    second = await gateway.route(("1", 1))
    assert (second.generation, second.uid != first.uid) == (1, True)


async def test_routes_are_read_again_from_the_store(gateway) -> None:
    await gateway.route(("1", 1))
    changed = await gateway.catalog.update("digits", "classifier", _heavier, Change())
    again = RouteCatalog(gateway.route_store, clock=gateway.clock, new_id=gateway.new_id)
    await again.load()
    assert again.select() == [changed]
