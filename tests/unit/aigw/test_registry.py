"""Endpoints live as long as their leases, and watchers learn of every change."""

import asyncio

import pytest
from aigw.adapters.memory import MemoryEndpointStore
from aigw.app.registry import EndpointRegistry, EventKind
from aigw.domain.endpoint import Endpoint
from chassis import errors

NAME = "projects/digits/models/classifier/endpoints/a"


async def test_an_endpoint_that_renews_stays(gateway) -> None:
    lease = await gateway.register("a", ttl=9.0)
    for _ in range(10):
        await gateway.clock.advance(6.0)
        gateway.registry.renew(NAME, lease.lease_id)
        await gateway.registry.expire_once()
    assert [found.endpoint.name for found in gateway.registry.select()] == [NAME]


async def test_an_endpoint_that_falls_silent_is_dropped_when_its_lease_is_over(gateway) -> None:
    await gateway.route(("1", 1))
    task = asyncio.create_task(gateway.registry.run_expiry())
    try:
        lease = await gateway.register("a", ttl=9.0)
        await gateway.clock.advance(8.9)
        assert await gateway.infer() == "a"
        await gateway.clock.advance(0.2)
        with pytest.raises(errors.Unavailable, match="no ready replica"):
            await gateway.infer()
        with pytest.raises(errors.NotFound, match="register again"):
            gateway.registry.renew(NAME, lease.lease_id)
        assert await gateway.endpoint_store.load() == []
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_shorter_lease_is_seen_by_the_expiry_that_waits_for_a_longer_one(gateway) -> None:
    task = asyncio.create_task(gateway.registry.run_expiry())
    try:
        await gateway.register("long", ttl=1000.0)
        await gateway.clock.advance(1.0)
        await gateway.register("short", ttl=2.0)
        await gateway.clock.advance(2.1)
        assert [found.endpoint.endpoint for found in gateway.registry.select()] == ["long"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_registering_again_takes_the_lease_over_and_connects_anew(gateway) -> None:
    await gateway.route(("1", 1))
    old = await gateway.register("a")
    connection = gateway.replicas["a"]
    new = await gateway.register("a")
    with pytest.raises(errors.NotFound, match="anew by another process"):
        gateway.registry.renew(NAME, old.lease_id)
    await gateway.registry.deregister(NAME, old.lease_id)  # the dead process's good-bye comes late
    assert gateway.registry.get(NAME).lease_id == new.lease_id
    await gateway.router.retire_once()
    assert connection.closed


async def test_a_deregistered_endpoint_is_picked_no_more_and_goodbye_twice_is_fine(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    await gateway.registry.deregister(NAME)
    await gateway.registry.deregister(NAME)
    assert set(await gateway.infer_many(4)) == {"b"}


async def test_a_draining_endpoint_is_picked_no_more_and_keeps_its_lease(gateway) -> None:
    await gateway.route(("1", 1))
    lease = await gateway.register("a")
    await gateway.register("b")
    await gateway.registry.drain(NAME, lease.lease_id)
    assert set(await gateway.infer_many(4)) == {"b"}
    assert gateway.registry.renew(NAME, lease.lease_id).draining
    with pytest.raises(errors.NotFound, match="under this lease"):
        await gateway.registry.drain(NAME, "another")
    with pytest.raises(errors.NotFound, match="is not registered"):
        await gateway.registry.drain(NAME + "x")


async def test_a_restarted_gateway_gives_each_lease_a_whole_ttl(gateway) -> None:
    lease = await gateway.register("a", ttl=9.0)
    await gateway.registry.drain(NAME)
    await gateway.clock.advance(1000.0)  # the gateway was away
    again = EndpointRegistry(gateway.endpoint_store, clock=gateway.clock, new_id=gateway.new_id)
    await again.load()
    assert again.get(NAME).draining
    await gateway.clock.advance(8.0)
    assert again.renew(NAME, lease.lease_id).expires == gateway.clock.monotonic() + 9.0


async def test_a_watch_tells_what_is_there_then_every_change_but_renewals(gateway) -> None:
    lease = await gateway.register("a")
    watch = gateway.registry.watch("")
    seen = [await anext(watch) for _ in range(2)]
    gateway.registry.renew(NAME, lease.lease_id)
    await gateway.register("b")
    await gateway.registry.drain(NAME)
    await gateway.registry.deregister(NAME)
    seen += [await anext(watch) for _ in range(3)]
    assert [(event and (event.kind, event.registration.endpoint.endpoint)) for event, _ in seen] == [
        (EventKind.PUT, "a"),
        None,
        (EventKind.PUT, "b"),
        (EventKind.PUT, "a"),
        (EventKind.REMOVED, "a"),
    ]
    await watch.aclose()


async def test_a_watch_goes_on_from_its_token(gateway) -> None:
    await gateway.register("a")
    watch = gateway.registry.watch("")
    await anext(watch)
    _, token = await anext(watch)
    await watch.aclose()
    await gateway.register("b")
    event, _ = await anext(gateway.registry.watch(token))
    assert event.registration.endpoint.endpoint == "b"


async def test_a_watch_can_be_limited_to_a_project_or_a_model(gateway) -> None:
    await gateway.registry.register(Endpoint("digits", "other", "x", "1", "x:1"), 9.0)
    await gateway.registry.register(Endpoint("faces", "classifier", "y", "1", "y:1"), 9.0)
    await gateway.register("a")
    for project, model, names in (
        ("digits", "", {"a", "x"}),
        ("", "classifier", {"a", "y"}),
        ("no", "", set()),
    ):
        found, watch = set(), gateway.registry.watch("", project, model)
        async for event, _ in watch:
            if event is None:
                break
            found.add(event.registration.endpoint.endpoint)
        await watch.aclose()
        assert found == names


@pytest.mark.parametrize(
    ("token", "error"),
    [
        pytest.param("elsewhere.3", errors.OutOfRange, id="of another process"),
        pytest.param("{epoch}.0", errors.OutOfRange, id="too old"),
        pytest.param("{epoch}.999", errors.OutOfRange, id="from the future"),
        pytest.param("nonsense", errors.InvalidArgument, id="malformed"),
        pytest.param("{epoch}.x", errors.InvalidArgument, id="no number"),
    ],
)
async def test_a_token_that_cannot_be_resumed_is_refused(gateway, token, error) -> None:
    registry = EndpointRegistry(
        gateway.endpoint_store, clock=gateway.clock, new_id=lambda: "epoch", history=2
    )
    for name in "abcd":
        await registry.register(Endpoint("p", "m", name, "1", "h:1"), 9.0)
    with pytest.raises(error):
        await anext(registry.watch(token.format(epoch="epoch")))


async def test_a_watcher_that_falls_behind_is_told_to_start_over(gateway) -> None:
    registry = EndpointRegistry(gateway.endpoint_store, clock=gateway.clock, new_id=lambda: "e", history=2)
    watch = registry.watch("")
    await anext(watch)
    for name in "abcd":
        await registry.register(Endpoint("p", "m", name, "1", "h:1"), 9.0)
    with pytest.raises(errors.OutOfRange, match="watch again without a token"):
        await anext(watch)


async def test_watches_end_when_the_gateway_stops(gateway) -> None:
    watch = gateway.registry.watch("")
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await gateway.clock.settle()
    gateway.registry.events.close()
    with pytest.raises(errors.Unavailable, match="stopping"):
        await waiting


async def test_a_store_that_fails_keeps_nobody_in_rotation_and_is_asked_again(gateway) -> None:
    class FailingStore(MemoryEndpointStore):
        failing = True

        async def delete(self, name: str) -> None:
            if self.failing:
                raise errors.Unavailable("disk", reason="STORE_UNAVAILABLE")
            await super().delete(name)

    store = FailingStore()
    registry = EndpointRegistry(store, clock=gateway.clock, new_id=gateway.new_id)
    await registry.register(Endpoint("p", "m", "a", "1", "h:1"), 2.0)
    task = asyncio.create_task(registry.run_expiry())
    try:
        await gateway.clock.advance(2.1)
        assert (registry.select(), len(await store.load())) == ([], 1)
        store.failing = False
        await gateway.clock.advance(1.1)
        assert await store.load() == []
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
