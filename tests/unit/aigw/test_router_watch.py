"""Watchers of routes learn of what is declared and of what is observed."""

import pytest
from aigw.domain.route import Change
from chassis import errors


async def test_a_watch_tells_routes_then_changes_of_desire_and_of_observation(gateway) -> None:
    await gateway.route(("1", 1))
    watch = gateway.router.watch("")
    first, _ = await anext(watch)
    synced, token = await anext(watch)
    assert (first.name, synced) == ("projects/digits/routes/classifier", None)
    await gateway.register("a")
    await gateway.catalog.set_weights("digits", "classifier", {"1": 1, "2": 1}, Change())
    await gateway.catalog.delete("digits", "classifier")
    seen = [(await anext(watch))[0] for _ in range(3)]
    assert [event.route and event.route.generation for event in seen] == [1, 2, None]
    await watch.aclose()
    again = gateway.router.watch(token)
    assert (await anext(again))[0].route.generation == 1
    await again.aclose()


async def test_a_watch_of_another_project_is_not_told(gateway) -> None:
    await gateway.route(("1", 1))
    watch = gateway.router.watch("", "faces")
    assert (await anext(watch))[0] is None
    await gateway.register("a")
    gateway.router.events.close()
    with pytest.raises(errors.Unavailable):
        await anext(watch)
