"""Contract messages become domain values and back; what cannot be done is refused, field by field."""

import pytest
from aigw.api import convert, paging
from aigw.api.route_servicer import RouteServicer
from chassis import errors
from chassis.paging import read_token
from google.protobuf import duration_pb2, field_mask_pb2, text_format
from penstock.aigw.v1 import route_pb2, route_service_pb2
from penstock.common.v1 import types_pb2

FULL = """
targets { version: "1" weight: 9 labels { key: "zone" value: "a" } }
targets { version: "2" weight: 1 }
policy {
  timeout { seconds: 5 }
  retry { max_attempts: 2 codes: UNAVAILABLE codes: ABORTED per_try_timeout { nanos: 500000000 }
          budget { percent: 10 min_per_second: 3 } }
  outlier_ejection { consecutive_failures: 7 base_ejection { seconds: 2 } max_ejection { seconds: 9 } }
  unready_targets: UNREADY_TARGET_POLICY_FAIL
}
annotations { key: "commit" value: "abc" }
"""


def test_a_route_survives_the_way_there_and_back() -> None:
    message = text_format.Parse(FULL, route_pb2.Route())
    route = convert.read_route("digits", "classifier", message)
    back = convert.route_message(route)
    for field in ("targets", "policy", "annotations"):
        assert getattr(back, field) == getattr(message, field)
    assert convert.read_route("digits", "classifier", back) == route


def test_a_route_without_a_policy_stays_without_one() -> None:
    message = route_pb2.Route(targets=[route_pb2.Target(version="1", weight=1)])
    assert not convert.route_message(convert.read_route("p", "m", message)).HasField("policy")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param('mirrors { version: "2" percent: 5 }', "route.mirrors", id="mirror"),
        pytest.param("policy { hedging { delay { seconds: 1 } } }", "route.policy.hedging", id="hedging"),
        pytest.param("policy { circuit_breaker { } }", "route.policy.circuit_breaker", id="circuit breaker"),
        pytest.param(
            "policy { stickiness { level: STICKINESS_LEVEL_VERSION } }",
            "route.policy.stickiness",
            id="sticky",
        ),
        pytest.param("policy { limits { unit: LIMIT_UNIT_BYTES } }", "route.policy.limits", id="limits"),
        pytest.param('model: "projects/p/models/other"', "route.model", id="another model"),
    ],
)
def test_what_this_version_does_not_execute_is_refused_and_never_ignored(text: str, field: str) -> None:
    message = text_format.Parse('targets { version: "1" weight: 1 } ' + text, route_pb2.Route())
    with pytest.raises(errors.Unimplemented, match="not available in this version of Penstock") as caught:
        convert.read_route("p", "m", message)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_every_field_of_a_route_and_its_policy_is_read_refused_or_output_only() -> None:
    """A field added to the contract must be thought of here."""
    assert {f.name for f in route_pb2.Route.DESCRIPTOR.fields} == {
        *("name", "model", "targets", "mirrors", "policy", "annotations", "etag"),
        *("uid", "generation", "observed_generation", "reconciling", "conditions", "observed_targets"),
        *("create_time", "update_time", "updater"),
    }
    assert {f.name for f in route_pb2.RoutePolicy.DESCRIPTOR.fields} == {
        *("timeout", "retry", "hedging", "circuit_breaker", "outlier_ejection", "stickiness", "limits"),
        "unready_targets",
    }


@pytest.fixture
def servicer(gateway) -> RouteServicer:
    return RouteServicer(gateway.catalog, gateway.router)


def _update(paths: list[str], text: str, **more: object) -> route_service_pb2.UpdateRouteRequest:
    route = text_format.Parse('name: "projects/digits/routes/classifier" ' + text, route_pb2.Route())
    return route_service_pb2.UpdateRouteRequest(
        route=route,
        update_mask=field_mask_pb2.FieldMask(paths=paths),
        **more,  # type: ignore[arg-type]
    )


async def _declared(servicer: RouteServicer) -> route_pb2.Route:
    return await servicer.CreateRoute(
        route_service_pb2.CreateRouteRequest(
            parent="projects/digits", route_id="classifier", route=text_format.Parse(FULL, route_pb2.Route())
        ),
        None,
    )


@pytest.mark.parametrize(
    ("paths", "text", "changed"),
    [
        pytest.param(["targets"], 'targets { version: "3" weight: 1 }', {"targets"}, id="targets"),
        pytest.param(
            ["annotations"], 'annotations { key: "x" value: "y" }', {"annotations"}, id="annotations"
        ),
        pytest.param(
            ["policy.timeout"], "policy { timeout { seconds: 9 } }", {"policy"}, id="one policy field"
        ),
        pytest.param(
            ["policy.retry.max_attempts"], "policy { retry { max_attempts: 5 } }", {"policy"}, id="deep"
        ),
        pytest.param(["policy"], "", {"policy"}, id="cleared policy"),
        pytest.param(
            [], 'targets { version: "3" weight: 1 }', {"targets", "policy", "annotations"}, id="no mask"
        ),
        pytest.param(
            ["*"], 'targets { version: "3" weight: 1 }', {"targets", "policy", "annotations"}, id="star"
        ),
        pytest.param(["policy.timeout"], "policy { timeout { seconds: 5 } }", set(), id="nothing new"),
    ],
)
async def test_an_update_changes_what_its_mask_names(servicer, paths, text, changed) -> None:
    before = await _declared(servicer)
    after = await servicer.UpdateRoute(_update(paths, text), None)
    assert {
        f for f in ("targets", "policy", "annotations") if getattr(before, f) != getattr(after, f)
    } == changed
    assert after.generation == (2 if changed else 1)


async def test_a_deep_mask_leaves_its_neighbours(servicer) -> None:
    await _declared(servicer)
    request = _update(["policy.retry.max_attempts"], "policy { retry { max_attempts: 5 } }")
    after = await servicer.UpdateRoute(request, None)
    assert (after.policy.retry.max_attempts, after.policy.retry.budget.percent) == (5, 10)
    assert after.policy.timeout == duration_pb2.Duration(seconds=5)


@pytest.mark.parametrize("path", ["name", "targets.weight", "policy.nothing", "uid", "generation"])
async def test_a_mask_of_what_cannot_be_changed_is_refused(servicer, path) -> None:
    await _declared(servicer)
    with pytest.raises(errors.InvalidArgument, match="cannot be changed"):
        await servicer.UpdateRoute(_update([path], ""), None)


async def test_an_update_cannot_bring_in_what_is_not_executed(servicer) -> None:
    await _declared(servicer)
    with pytest.raises(errors.Unimplemented, match="mirroring"):
        await servicer.UpdateRoute(_update(["mirrors"], 'mirrors { version: "2" percent: 5 }'), None)


async def test_what_is_observed_stands_apart_from_what_is_desired(gateway, servicer) -> None:
    await gateway.route(("1", 9), ("2", 1))
    await gateway.register("a", "1")
    await gateway.register("b", "1")
    await gateway.registry.drain("projects/digits/models/classifier/endpoints/b")
    request = route_service_pb2.GetRouteRequest(name="projects/digits/routes/classifier")
    route = await servicer.GetRoute(request, None)
    assert [(t.version, t.weight) for t in route.targets] == [("1", 9), ("2", 1)]
    seen = [(t.version, t.ready_endpoints, t.draining_endpoints, t.share) for t in route.observed_targets]
    assert seen == [("1", 1, 1, 1.0), ("2", 0, 0, 0.0)]
    conditions = {c.type: (c.status, c.reason) for c in route.conditions}
    assert conditions == {
        "Ready": (types_pb2.CONDITION_STATUS_TRUE, "TARGETS_READY"),
        "WeightsApplied": (types_pb2.CONDITION_STATUS_FALSE, "TARGETS_WITHOUT_READY_ENDPOINT"),
    }
    assert (route.observed_generation, route.reconciling) == (1, False)


async def test_weights_name_a_version_once(gateway, servicer) -> None:
    await gateway.route(("1", 1))
    weight = route_service_pb2.VersionWeight(version="1", weight=1)
    request = route_service_pb2.SetWeightsRequest(
        name="projects/digits/routes/classifier", weights=[weight, weight]
    )
    with pytest.raises(errors.InvalidArgument, match="named twice"):
        await servicer.SetWeights(request, None)


async def test_history_is_given_page_by_page(gateway, servicer) -> None:
    await gateway.route(("1", 1))
    for weight in range(2, 6):
        request = route_service_pb2.SetWeightsRequest(
            name="projects/digits/routes/classifier",
            weights=[
                route_service_pb2.VersionWeight(version="1", weight=weight),
                route_service_pb2.VersionWeight(version="2", weight=1),
            ],
            reason=f"step {weight}",
        )
        await servicer.SetWeights(request, None)
    found, token = [], ""
    while True:
        page = await servicer.ListRouteSnapshots(
            route_service_pb2.ListRouteSnapshotsRequest(
                parent="projects/digits/routes/classifier", page_size=2, page_token=token
            ),
            None,
        )
        found += [(s.name.rpartition("/")[2], s.reason) for s in page.route_snapshots]
        token = page.next_page_token
        if not token:
            break
    assert found == [("5", "step 5"), ("4", "step 4"), ("3", "step 3"), ("2", "step 2"), ("1", "")]


def test_pages_follow_each_other_without_gap_or_repeat() -> None:
    items = [f"{n:03d}" for n in range(10)]
    found, token = [], ""
    for _ in range(4):
        chosen, token = paging.page(items, lambda item: item, 3, token)
        found += chosen
    assert (found, token) == (items, "")


@pytest.mark.parametrize("token", ["!!", "/w==", "abc"])
def test_a_page_token_of_somebody_else_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="page_token"):
        read_token(token)
