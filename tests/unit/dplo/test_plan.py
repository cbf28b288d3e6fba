"""The pure plan: what it asks for, and that it converges from any state."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from dplo.domain.actions import DeleteRoute, FetchPackage, PlaceReplica, PutRoute, StopReplica
from dplo.domain.deployment import Cause, Deployment, begin
from dplo.domain.gate import TrafficSample
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Observed, Replica, ReplicaState, RouteView
from dplo.domain.plan import Plan, plan, plan_removal
from dplo.domain.preview import apply_actions, preview
from dplo.domain.rollout import Phase, Rollout, RolloutState, TraceReference, pause, promote, resume
from dplo.domain.spec import FailureAction, Gate, PackagePin, Spec, Step, Strategy, VersionSpec
from dplo.domain.traffic import Shares
from hypothesis import given, settings
from hypothesis import strategies as st

NAME = DeploymentName("digits", "classifier")
MODEL = "projects/digits/models/classifier"


def version(name: str, replicas: int = 1, **more: object) -> VersionSpec:
    pin = PackagePin(f"{MODEL}/packages/{name}", f"sha256:{name * 64}"[:71])
    return VersionSpec(name, pin, replicas, **more)  # type: ignore[arg-type]


def spec(traffic: dict[str, int], *versions: VersionSpec, **strategy: object) -> Spec:
    declared = versions or tuple(version(name) for name in traffic)
    return Spec(MODEL, declared, Shares.percent(traffic), Strategy(**strategy))  # type: ignore[arg-type]


def begun(
    before: Deployment | None, wanted: Spec, now: float = 0.0, cause: Cause = Cause.APPLY
) -> Deployment:
    return begin(before, NAME, wanted, uid="u" * 32, now=now, cause=cause, trace=TraceReference())


class World:
    """Applies plans to a world where actions succeed, and checks on each what must hold of every plan."""

    def __init__(self, deployment: Deployment, seen: Observed | None = None) -> None:
        self.deployment = deployment
        self.seen = seen or Observed(now=0.0, replicas=())
        self.told: list[object] = []

    @property
    def rollout(self) -> Rollout:
        return self.deployment.rollout

    def look(self) -> Plan:
        made = plan(NAME, self.rollout, self.seen)
        check_plan(self.rollout, self.seen, made)
        self.told += made.actions
        self.seen = apply_actions(NAME, replace(self.seen, now=self.seen.now + 1), made.actions)
        complete = made.rollout.state is RolloutState.COMPLETE
        number = made.rollout.revision if complete else self.deployment.last_complete
        self.deployment = replace(self.deployment, rollout=made.rollout, last_complete=number)
        return made

    def run(self, until: Callable[[Rollout], bool] | None = None, looks: int = 200) -> "World":
        for _ in range(looks):
            before = self.rollout
            made = self.look()
            if until is not None and until(self.rollout):
                return self
            if until is None and not made.actions and made.rollout == before and made.check_at is None:
                return self
        if until is None:
            return self
        raise AssertionError(f"not reached after {looks} looks: {self.rollout}")

    def apply(self, wanted: Spec, cause: Cause = Cause.APPLY) -> "World":
        self.deployment = begun(self.deployment, wanted, self.seen.now, cause)
        self.told.clear()
        return self

    def change(self, state: ReplicaState, name: str, **more: object) -> None:
        replicas = tuple(
            replace(r, state=state, **more) if r.version == name else r  # type: ignore[arg-type]
            for r in self.seen.replicas or ()
        )
        self.seen = replace(self.seen, replicas=replicas)

    @property
    def weights(self) -> dict[str, int]:
        return dict(self.seen.route.weights) if self.seen.route else {}

    @property
    def running(self) -> list[str]:
        return sorted(r.version for r in self.seen.replicas or ())


def check_plan(rollout: Rollout, seen: Observed, made: Plan) -> None:
    routed = seen.route.shares.versions if seen.route else frozenset()
    stopped = [a.replica for a in made.actions if isinstance(a, StopReplica)]
    for action in made.actions:
        if isinstance(action, PutRoute):
            assert action.shares.versions <= seen.ready_versions(), "traffic to a version that is not ready"
        if isinstance(action, PutRoute | StopReplica | DeleteRoute):
            assert seen.gateway_known, "acts on traffic without knowing it"
        if isinstance(action, StopReplica) and action.version in routed:
            rest = [
                r
                for r in seen.replicas or ()
                if r.ready and r.version == action.version and r.id not in stopped
            ]
            had = any(r.ready for r in seen.replicas or () if r.version == action.version)
            assert rest or not had, "the last ready replica of a version with traffic is stopped"
    places = [a.replica for a in made.actions if isinstance(a, PlaceReplica)]
    assert len(places) == len(set(places)), "a replica placed twice"
    assert not set(places) & {r.id for r in seen.replicas or ()}, "a replica placed that is there"


def test_a_first_deployment_is_resolved_placed_awaited_routed_and_complete() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 2))))
    phases = []
    for _ in range(20):
        phases.append(world.rollout.phase)
        world.look()
    assert list(dict.fromkeys(phases)) == list(Phase)
    assert world.rollout.state is RolloutState.COMPLETE
    assert world.weights == {"1": 100}
    assert world.running == ["1", "1"]
    assert [type(a) for a in world.told] == [FetchPackage, PlaceReplica, PlaceReplica, PutRoute]


def test_nothing_is_asked_for_on_the_achieved_state() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 2)))).run()
    made = plan(NAME, world.rollout, world.seen)
    assert made.actions == ()
    assert made.rollout == world.rollout


def test_the_old_version_stays_until_the_new_one_has_its_traffic() -> None:
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}))
    while world.rollout.phase.order < Phase.SHIFT.order:
        world.look()
        assert "1" in world.running
        assert world.weights == {"1": 100}
    world.run()
    assert world.weights == {"2": 100}
    assert world.running == ["2"]
    kinds = [type(a) for a in world.told]
    assert kinds.index(PutRoute) < kinds.index(StopReplica)


def test_traffic_moves_by_the_declared_steps() -> None:
    steps = (Step(10), Step(50))
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, steps=steps)).run()
    moves = [dict(a.shares.weights()) for a in world.told if isinstance(a, PutRoute)]
    assert moves == [{"1": 90, "2": 10}, {"1": 50, "2": 50}, {"2": 100}]
    assert world.rollout.state is RolloutState.COMPLETE


def test_a_step_lasts_as_long_as_it_says() -> None:
    steps = (Step(10, min_duration=30),)
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, steps=steps))
    world.run(lambda r: r.step_started_at is not None)
    began = world.seen.now
    made = plan(NAME, world.rollout, world.seen)
    assert made.check_at == pytest.approx((world.rollout.step_started_at or 0) + 30)
    world.run(lambda r: r.step == 1)
    assert world.seen.now - began >= 29


def test_a_manual_step_waits_for_promotion_and_goes_on_with_it() -> None:
    steps = (Step(10, manual_promotion=True),)
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, steps=steps)).run()
    assert world.rollout.state is RolloutState.AWAITING_PROMOTION
    assert world.weights == {"1": 90, "2": 10}
    assert world.running == ["1", "2"]
    world.deployment = replace(world.deployment, rollout=promote(world.rollout, to_completion=False))
    world.run()
    assert world.rollout.state is RolloutState.COMPLETE
    assert world.weights == {"2": 100}


def test_promotion_to_completion_waits_for_no_further_step() -> None:
    steps = (Step(10, 1000, True), Step(50, 1000, True))
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, steps=steps)).run()
    world.deployment = replace(world.deployment, rollout=promote(world.rollout, to_completion=True))
    world.run()
    assert world.rollout.state is RolloutState.COMPLETE


def test_a_paused_rollout_moves_no_traffic_but_keeps_replicas_running() -> None:
    steps = (Step(10), Step(50))
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, steps=steps))
    world.run(lambda r: r.step_started_at is not None)
    world.deployment = replace(world.deployment, rollout=pause(world.rollout, "by a person"))
    world.seen = replace(world.seen, replicas=tuple(r for r in world.seen.replicas or () if r.version == "1"))
    world.run()
    assert world.weights == {"1": 90, "2": 10}
    assert world.running == ["1", "2"]
    world.deployment = replace(world.deployment, rollout=resume(world.rollout, world.seen.now))
    assert world.run().rollout.state is RolloutState.COMPLETE


def test_an_unchanged_version_is_not_restarted_by_a_change_of_another() -> None:
    world = World(begun(None, spec({"1": 100}))).run()
    kept = {r.id for r in world.seen.replicas or ()}
    world.apply(spec({"1": 50, "2": 50})).run()
    assert kept <= {r.id for r in world.seen.replicas or ()}
    assert world.weights == {"1": 50, "2": 50}


def test_a_changed_environment_replaces_replicas_after_the_new_ones_are_ready() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 2)))).run()
    old = {r.id for r in world.seen.replicas or ()}
    world.apply(spec({"1": 100}, version("1", 2, environment=(("A", "b"),)))).run()
    new = {r.id for r in world.seen.replicas or ()}
    assert not old & new
    assert len(new) == 2


def test_scaling_down_stops_only_what_is_too_much_and_the_newest_ordinals_first() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 3)))).run()
    world.apply(spec({"1": 100}, version("1", 1))).run()
    assert [r.ordinal for r in world.seen.replicas or ()] == [0]


def test_a_missing_replica_is_placed_again_under_the_same_id() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 2)))).run()
    before = {r.id for r in world.seen.replicas or ()}
    world.seen = replace(world.seen, replicas=(world.seen.replicas or ())[1:])
    world.run()
    assert {r.id for r in world.seen.replicas or ()} == before


def test_weights_that_somebody_changed_at_the_gateway_are_set_back() -> None:
    world = World(begun(None, spec({"1": 50, "2": 50}))).run()
    world.seen = replace(world.seen, route=RouteView((("1", 1),), "theirs", b"", str(NAME)))
    world.run()
    assert world.weights == {"1": 50, "2": 50}


@pytest.mark.parametrize("error", ["gateway_error", "cluster_error"])
def test_without_a_view_of_the_world_nothing_is_stopped_or_routed(error: str) -> None:
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}))
    world.run(lambda r: r.phase is Phase.SHIFT)
    blind = replace(world.seen, **{error: "connection refused"}, route=None)  # type: ignore[arg-type]
    if error == "cluster_error":
        blind = replace(blind, replicas=None)
    made = plan(NAME, world.rollout, blind)
    assert not [a for a in made.actions if isinstance(a, PutRoute | StopReplica | DeleteRoute)]


def failing(**strategy: object) -> World:
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, **strategy))
    return world.run(lambda r: r.phase is Phase.WAIT)


def test_a_crash_looping_new_replica_asks_for_the_way_back() -> None:
    world = failing()
    world.change(ReplicaState.CRASH_LOOPING, "2", message="exit code 1; ImportError: no module")
    made = world.look()
    assert made.rollback is not None
    assert made.rollback.reason == "REPLICA_CRASH_LOOPING"
    assert "ImportError" in made.rollback.message
    assert world.weights == {"1": 100}


def test_replicas_that_are_not_ready_in_time_ask_for_the_way_back_and_say_which() -> None:
    world = failing(ready_timeout=60.0)
    world.change(ReplicaState.STARTING, "2")
    assert world.look().rollback is None
    world.seen = replace(world.seen, now=world.seen.now + 60)
    made = world.look()
    assert made.rollback is not None
    assert made.rollback.reason == "READY_TIMEOUT"
    assert "version 2: 0 of 1 ready" in made.rollback.message


def test_a_failure_pauses_where_the_declaration_says_so() -> None:
    world = failing(on_failure=FailureAction.PAUSE)
    world.change(ReplicaState.CRASH_LOOPING, "2")
    made = world.look()
    assert made.rollback is None
    assert world.rollout.state is RolloutState.PAUSED
    assert world.rollout.reason == "REPLICA_CRASH_LOOPING"


def test_a_first_deployment_that_fails_has_no_way_back_and_keeps_its_replicas_for_their_logs() -> None:
    world = World(begun(None, spec({"1": 100}))).run(lambda r: r.phase is Phase.WAIT)
    world.change(ReplicaState.CRASH_LOOPING, "1")
    world.look()
    assert world.rollout.state is RolloutState.FAILED
    world.run()
    assert world.running == ["1"]
    assert world.weights == {}


def test_going_back_is_immediate_and_takes_no_steps() -> None:
    old = spec({"1": 100}, steps=(Step(10, 1000, True),))
    world = (
        World(begun(None, old)).run().apply(spec({"2": 100}, steps=(Step(10, manual_promotion=True),))).run()
    )
    assert world.weights == {"1": 90, "2": 10}
    world.apply(old, Cause.AUTOMATIC_ROLLBACK).run()
    assert [dict(a.shares.weights()) for a in world.told if isinstance(a, PutRoute)] == [{"1": 100}]
    assert world.rollout.state is RolloutState.COMPLETE
    assert world.running == ["1"]


def test_a_superseded_rollout_hands_its_split_over_to_the_next() -> None:
    world = World(begun(None, spec({"1": 100}))).run()
    world.apply(spec({"2": 100}, steps=(Step(20, manual_promotion=True),))).run()
    world.apply(spec({"3": 100}, steps=(Step(50, manual_promotion=True),))).run()
    assert world.weights == {"1": 40, "2": 10, "3": 50}
    assert world.running == ["1", "2", "3"]


def gated(sample: TrafficSample | None, **gate: object) -> World:
    strategy = {"steps": (Step(10), Step(50)), "gate": Gate(**gate)}  # type: ignore[arg-type]
    world = World(begun(None, spec({"1": 100}))).run().apply(spec({"2": 100}, **strategy))
    world.run(lambda r: r.step_started_at is not None)
    world.seen = replace(world.seen, samples=None if sample is None else {"2": sample})
    return world


def test_the_gate_holds_a_step_until_there_are_enough_requests() -> None:
    world = gated(TrafficSample(99, 0), max_error_rate=0.01, min_requests=100)
    world.look()
    assert (world.rollout.step, world.rollout.reason) == (0, "GATE_WAITING")
    assert "99 of 100 requests" in world.rollout.message


def test_the_gate_lets_a_good_version_go_on() -> None:
    world = gated(TrafficSample(100, 1), max_error_rate=0.01, min_requests=100)
    world.look()
    assert world.rollout.step == 1


@pytest.mark.parametrize(
    ("sample", "gate", "text"),
    [
        (TrafficSample(100, 2), {"max_error_rate": 0.01}, "2 of 100 requests failed"),
        (
            TrafficSample(100, 0, ((99.0, 0.25),)),
            {"latency_percentile": 99.0, "max_latency": 0.1},
            "99th percentile of the latency is 250.0 ms",
        ),
    ],
    ids=["errors", "latency"],
)
def test_the_gate_sends_a_bad_version_back(sample: TrafficSample, gate: dict[str, float], text: str) -> None:
    made = gated(sample, **gate).look()
    assert made.rollback is not None
    assert made.rollback.reason == "GATE_FAILED"
    assert text in made.rollback.message


def test_a_gate_that_cannot_be_asked_never_lets_a_version_go_on() -> None:
    world = gated(None, max_error_rate=0.01)
    world.seen = replace(world.seen, samples_error="QueryTraffic is not available")
    world.look()
    assert (world.rollout.step, world.rollout.reason) == (0, "GATE_WAITING")
    assert "not available" in world.rollout.message


def test_a_route_of_another_deployment_is_not_touched() -> None:
    world = World(begun(None, spec({"1": 100})))
    theirs = RouteView((("9", 1),), "e", b"", "projects/digits/deployments/other")
    world.seen = replace(world.seen, route=theirs)
    world.run()
    assert world.rollout.state is RolloutState.FAILED
    assert world.rollout.reason == "ROUTE_OWNED"
    assert world.weights == {"9": 1}


def test_removal_takes_the_route_before_the_replicas_and_then_forgets() -> None:
    world = World(begun(None, spec({"1": 100}, version("1", 2)))).run()
    first = plan_removal(NAME, world.rollout, world.seen)
    assert [type(a) for a in first.actions] == [DeleteRoute]
    seen = apply_actions(NAME, world.seen, first.actions)
    second = plan_removal(NAME, world.rollout, seen)
    assert [type(a) for a in second.actions] == [StopReplica, StopReplica]
    third = plan_removal(NAME, world.rollout, apply_actions(NAME, seen, second.actions))
    assert third.forget


def test_a_preview_tells_the_actions_in_order_with_the_waits() -> None:
    before = World(begun(None, spec({"1": 100}))).run()
    known = replace(
        before.deployment,
        status=replace(
            before.deployment.status, replicas=before.seen.replicas or (), shares=Shares.percent({"1": 100})
        ),
    )
    told = preview(NAME, known, spec({"2": 100}, steps=(Step(10, 60, True),)))
    assert [a.kind for a in told] == [
        "FETCH_PACKAGE",
        "PLACE_REPLICA",
        "WAIT_READY",
        "SHIFT_TRAFFIC",
        "WAIT_STEP",
        "WAIT_STEP",
        "SHIFT_TRAFFIC",
        "STOP_REPLICA",
    ]


# From any state.

NAMES = ("1", "2", "3")
replica_states = st.sampled_from(list(ReplicaState))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    percents = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    versions = [
        version(name, draw(st.integers(1, 3)), environment=(("E", draw(st.sampled_from("xy"))),))
        for name in names
    ]
    steps = tuple(Step(p) for p in sorted(draw(st.sets(st.integers(1, 100), max_size=3))))
    return spec(dict(zip(names, percents, strict=True)), *versions, steps=steps, ready_timeout=1e9)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A deployment somewhere in a chain of rollouts, and a world that need not fit it at all."""
    world = World(begun(None, draw(specs())))
    for _ in range(draw(st.integers(0, 3))):
        world.run(looks=draw(st.integers(0, 25)))
        world.apply(draw(specs()), draw(st.sampled_from([Cause.APPLY, Cause.ROLLBACK])))
    world.run(looks=draw(st.integers(0, 25)))
    kept = [
        replace(r, state=draw(replica_states), registered=draw(st.booleans()))
        for r in world.seen.replicas or ()
        if draw(st.integers(0, 3))
    ]
    stray = draw(st.lists(st.tuples(st.sampled_from(NAMES), replica_states), max_size=2))
    kept += [Replica(f"stray-{i}", v, "old", s, i, registered=True) for i, (v, s) in enumerate(stray)]
    route = draw(
        st.sampled_from([world.seen.route, None, RouteView((("2", 1), ("9", 3)), "x", b"", str(NAME))])
    )
    cached = frozenset(d for d in world.seen.cached if draw(st.booleans()))
    world.seen = replace(world.seen, replicas=tuple(kept), route=route, cached=cached)
    return world


def heal(world: World) -> None:
    """What time does: what starts becomes ready, what drains goes, what loops comes up in the end."""
    healed = [
        replace(r, state=ReplicaState.HEALTHY, registered=True)
        for r in world.seen.replicas or ()
        if r.state is not ReplicaState.DRAINING
    ]
    world.seen = replace(world.seen, replicas=tuple(healed))


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_it_converges_from_any_state_and_then_asks_for_nothing(world: World) -> None:
    for _ in range(60):
        made = world.look()
        if made.rollback is not None:
            world.apply(world.rollout.target, Cause.AUTOMATIC_ROLLBACK)
        if world.rollout.state is RolloutState.FAILED:
            world.apply(world.rollout.target, Cause.ROLLBACK)
        heal(world)
    world.run()
    target = world.rollout.target
    assert world.rollout.state is RolloutState.COMPLETE
    assert world.seen.route is not None
    assert world.seen.route.shares.parts == target.traffic.parts
    wanted = sorted(v.version for v in target.versions for _ in range(v.replicas))
    assert world.running == wanted
    made = plan(NAME, world.rollout, world.seen)
    assert (made.actions, made.rollout) == ((), world.rollout)


@settings(max_examples=40, deadline=None)
@given(worlds(), st.data())
def test_no_plan_is_unsafe_whatever_is_seen(world: World, data: st.DataObject) -> None:
    for _ in range(15):
        made = world.look()  # checks what must hold of every plan
        again = plan(NAME, made.rollout, world.seen)
        assert again == plan(NAME, made.rollout, world.seen)
        states = {r.id: data.draw(replica_states) for r in world.seen.replicas or ()}
        replicas = tuple(replace(r, state=states[r.id]) for r in world.seen.replicas or ())
        world.seen = replace(world.seen, replicas=replicas)
