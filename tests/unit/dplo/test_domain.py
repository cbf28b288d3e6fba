"""Shares, names, rules, changes, drift: the small rules."""

from dataclasses import replace

import pytest
from chassis import errors
from dplo.domain.changes import find_changes
from dplo.domain.deployment import Cause, begin
from dplo.domain.drift import DriftState, Hop, find_drift
from dplo.domain.names import DeploymentName, ModelName, parse_replica, parse_revision
from dplo.domain.observed import Observed, Replica, ReplicaState, RouteView
from dplo.domain.rollout import Phase, RolloutState, TraceReference
from dplo.domain.rules import check, check_targets
from dplo.domain.spec import Accelerator, Gate, Resources, ServerOptions, Step
from dplo.domain.traffic import WHOLE, Shares, blend
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dplo.service import MODEL, NAME, spec, version


@st.composite
def shares(draw: st.DrawFn) -> Shares:
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    weights = [draw(st.integers(0, 1000)) for _ in names]
    return Shares.from_weights(zip(names, [w + (i == 0) for i, w in enumerate(weights)], strict=True))


@given(shares(), shares(), st.integers(0, 100))
def test_a_blend_is_whole_and_lies_between_its_ends(before: Shares, after: Shares, percent: int) -> None:
    mixed = blend(before, after, percent)
    assert sum(part for _, part in mixed.parts) == WHOLE
    for name, part in mixed.parts:
        low, high = sorted((before[name], after[name]))
        assert low - 1 <= part <= high + 1


@given(shares())
def test_weights_and_shares_are_each_others_inverse(value: Shares) -> None:
    assert Shares.from_weights(value.weights()) == value


@pytest.mark.parametrize(
    ("parts", "weights"),
    [
        ({"1": 9000, "2": 1000}, (("1", 90), ("2", 10))),
        ({"1": 10000, "2": 0}, (("1", 100), ("2", 0))),
        ({"1": 9950, "2": 50}, (("1", 199), ("2", 1))),
    ],
    ids=["percents", "nothing", "fractions"],
)
def test_weights_are_percents_where_they_are_whole(
    parts: dict[str, int], weights: tuple[tuple[str, int], ...]
) -> None:
    assert Shares.of(parts).weights() == weights


@pytest.mark.parametrize(
    "name", ["", "projects/a", "projects//deployments/b", "projects/a/models/b", "a/b/c/d"]
)
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        DeploymentName.parse(name)
    assert raised.value.reason == "NAME_MALFORMED"


def test_names_are_read_and_written() -> None:
    assert str(DeploymentName.parse("projects/a/deployments/b")) == "projects/a/deployments/b"
    assert parse_revision("projects/a/deployments/b/revisions/7") == (DeploymentName("a", "b"), 7)
    assert parse_replica("projects/a/deployments/b/replicas/c-0") == (DeploymentName("a", "b"), "c-0")
    assert ModelName.parse(MODEL).route == "projects/digits/routes/classifier"


CLUSTERS = frozenset({"clusters/local"})


@pytest.mark.parametrize(
    ("wanted", "field", "reason"),
    [
        (spec({"1": 60, "2": 30}), "traffic", "SUM"),
        (spec({}, version("1"), version("2")), "traffic", "REQUIRED"),
        (spec({"1": 100}, version("1"), version("1")), "versions[1].version", "DUPLICATE"),
        (spec({"1": 100}, replace(version("1"), version="2")), "versions[0].version", "VERSION_DIFFERS"),
        (spec({"1": 100}, steps=(Step(50), Step(10))), "rollout.steps[1].percent", "NOT_RISING"),
        (spec({"1": 100}, steps=(Step(50),), gate=Gate()), "rollout.gate", "EMPTY"),
        (spec({"1": 100}, gate=Gate(max_error_rate=0.1)), "rollout.gate", "NO_STEPS"),
        (
            spec({"1": 100}, steps=(Step(1),), gate=Gate(latency_percentile=75.0, max_latency=1.0)),
            "rollout.gate.latency.percentile",
            "NOT_AVAILABLE",
        ),
        (
            spec({"1": 100}, steps=(Step(1),), gate=Gate(max_shadow_disagreement=0.1)),
            "rollout.gate.max_shadow_disagreement",
            "NOT_AVAILABLE",
        ),
        (
            spec({"1": 100}, version("1", resources=Resources(accelerator=Accelerator("amd-gpu", 1)))),
            "versions[0].resources.accelerator.kind",
            "NOT_AVAILABLE",
        ),
        (
            spec({"1": 100}, version("1", server=ServerOptions(max_batch_delay=0.1))),
            "versions[0].server.max_batch_delay",
            "NOT_AVAILABLE",
        ),
        (replace(spec({"1": 100}), model="projects/other/models/classifier"), "model", "PROJECT_DIFFERS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_declaration_that_breaks_a_rule_is_told_by_field(wanted: object, field: str, reason: str) -> None:
    found = check(NAME, wanted, CLUSTERS)  # type: ignore[arg-type]
    assert (field, reason) in [(v.field, v.reason) for v in found]


def test_targets_are_checked_as_they_were_written() -> None:
    found = check_targets([("1", 50), ("9", 10), ("1", 40)], ["1"])
    assert [(v.field, v.reason) for v in found] == [
        ("traffic[1].version", "UNKNOWN_VERSION"),
        ("traffic[2].version", "DUPLICATE"),
    ]


def test_changes_name_each_field_and_do_not_mind_order() -> None:
    before = spec({"1": 100}, version("1", 2))
    after = spec({"1": 90, "2": 10}, version("2"), version("1", 3))
    changes = {c.path: (c.before, c.after) for c in find_changes(before, after)}
    assert changes['versions["1"].replicas'] == ("2", "3")
    assert changes['traffic["2"].percent'] == ("", "10")
    assert changes['traffic["1"].percent'] == ("100", "90")
    assert find_changes(after, replace(after, versions=after.versions[::-1])) == ()


def test_drift_is_told_per_hop() -> None:
    deployment = begin(None, NAME, spec({"1": 100}), uid="", now=0, cause=Cause.APPLY, trace=TraceReference())
    rollout = replace(deployment.rollout, state=RolloutState.COMPLETE, phase=Phase.DONE)
    wanted = rollout.target.versions[0]
    good = Replica("a", "1", wanted.fingerprint, ReplicaState.HEALTHY, registered=True)
    route = RouteView((("1", 100),), "e", b"", str(NAME))
    synced = Observed(0.0, (good,), route=route, endpoints=("a",))
    assert {h.hop: h.state for h in find_drift(rollout, synced)} == {
        Hop.GIT: DriftState.NOT_APPLICABLE,
        Hop.CLUSTER: DriftState.IN_SYNC,
        Hop.ROUTE_PROVIDER: DriftState.IN_SYNC,
        Hop.GATEWAY: DriftState.IN_SYNC,
    }
    drifted = Observed(
        0.0,
        (replace(good, registered=False), replace(good, id="b", fingerprint="old")),
        route=replace(route, weights=(("1", 1), ("2", 1))),
        endpoints=("ghost",),
    )
    told = {h.hop: [d.path for d in h.differences] for h in find_drift(rollout, drifted)}
    assert told[Hop.CLUSTER] == ['replicas["b"]']
    assert 'endpoints["ghost"]' in told[Hop.ROUTE_PROVIDER]
    assert told[Hop.GATEWAY] == ['traffic["1"].percent', 'traffic["2"].percent']
    blind = Observed(0.0, None, gateway_error="refused", cluster_error="gone")
    assert [h.state for h in find_drift(rollout, blind)][1:] == [DriftState.UNKNOWN] * 3
