"""One look after another over fakes and virtual time: what comes of good and bad days, and of crashes."""

import pytest
from chassis import errors
from dplo.app.events import EventType
from dplo.domain.conditions import Truth
from dplo.domain.deployment import Cause, Deployment
from dplo.domain.gate import TrafficSample
from dplo.domain.observed import ReplicaState
from dplo.domain.rollout import Phase, RolloutState
from dplo.domain.spec import FailureAction, Gate, Step

from tests.unit.dplo.service import MODEL, NAME, Service, spec, version


@pytest.fixture
def service() -> Service:
    return Service()


def condition(deployment: Deployment, kind: str) -> tuple[Truth, str, str]:
    found = next(c for c in deployment.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


async def test_a_deployment_comes_into_service_and_every_condition_holds(service: Service) -> None:
    deployment = await service.deployed(spec({"1": 100}, version("1", 2)))
    assert deployment.rollout.state is RolloutState.COMPLETE
    assert service.running == ["1", "1"]
    assert service.weights == {"1": 100}
    assert {c.type: c.status for c in deployment.status.conditions} == dict.fromkeys(
        (
            "PackagesResolved",
            "ReplicasReady",
            "GatewayReachable",
            "TrafficShifted",
            "RolloutComplete",
            "Ready",
        ),
        Truth.TRUE,
    )
    assert deployment.observed_generation == deployment.generation == 1


async def test_history_keeps_who_what_when_and_each_step(service: Service) -> None:
    await service.deployed(spec({"1": 100}), message="first")
    revision = await service.deployments.revision(NAME, 1)
    assert (revision.author, revision.message, revision.cause) == ("ada", "first", Cause.APPLY)
    assert [s.phase for s in revision.steps] == [
        Phase.RESOLVE,
        Phase.PLACE,
        Phase.WAIT,
        Phase.SHIFT,
        Phase.SHIFT,
        Phase.DRAIN,
    ]
    assert all(step.ended_at is not None for step in revision.steps)
    assert revision.trace_id
    assert revision.state is RolloutState.COMPLETE


async def test_a_rollout_is_one_trace_of_phases_under_one_root(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    (root, told), *others = service.tracer.rollouts
    assert not others
    assert [span.name for _, span in service.tracer.phases] == ["resolve", "place", "wait", "shift", "drain"]
    assert {ref.trace_id for ref, _ in service.tracer.phases} == {root.trace_id}
    assert {ref.span_id for ref, _ in service.tracer.phases} == {root.span_id}
    ids = [ref.phase_span_id for ref, _ in service.tracer.phases]
    assert len(set(ids)) == len(ids)
    assert told.started_at <= min(span.started_at for _, span in service.tracer.phases)


async def test_applying_what_is_declared_makes_no_revision(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    again = await service.apply(spec({"1": 100}))
    assert not again.changed
    assert len(await service.deployments.revisions(NAME, None, 10)) == 1
    forced = await service.apply(spec({"1": 100}), force=True)
    assert (forced.changed, forced.revision) == (True, 2)


async def test_an_unknown_package_is_refused_with_its_field(service: Service) -> None:
    with pytest.raises(errors.NotFound) as raised:
        await service.apply(spec({"9": 100}))
    assert raised.value.violations[0].field == "versions[0].package.package"
    assert await service.store.read(NAME) is None


async def test_a_stale_etag_is_refused_and_says_the_present_one(service: Service) -> None:
    before = await service.deployed(spec({"1": 100}))
    await service.deployed(spec({"2": 100}), etag=before.etag)
    with pytest.raises(errors.Aborted) as raised:
        await service.apply(spec({"3": 100}), etag=before.etag)
    now = await service.deployments.get(NAME)
    assert raised.value.reason == "ETAG_MISMATCH"
    assert raised.value.metadata["etag"] == now.etag


@pytest.mark.parametrize(
    "error",
    [
        errors.DataLoss("the content has another digest", reason="PACKAGE_DIGEST_MISMATCH"),
        errors.DataLoss("its archive cannot be read", reason="PACKAGE_CORRUPT"),
        errors.NotFound("no such package", reason="PACKAGE_NOT_FOUND"),
    ],
    ids=lambda error: error.reason,
)
async def test_a_package_that_cannot_be_had_goes_back_and_never_gets_traffic(
    service: Service, error: errors.Error
) -> None:
    await service.deployed(spec({"1": 100}))
    service.packages.broken[f"{MODEL}/packages/2"] = error
    deployment = await service.deployed(spec({"2": 100}))
    assert deployment.rollout.state is RolloutState.COMPLETE
    assert service.weights == {"1": 100}
    failed = await service.deployments.revision(NAME, 2)
    assert failed.state is RolloutState.ROLLED_BACK
    assert error.message in failed.state_message
    back = await service.deployments.revision(NAME, 3)
    assert (back.cause, back.restored, back.author) == (Cause.AUTOMATIC_ROLLBACK, 1, "penstock")


async def test_a_first_deployment_with_a_corrupt_package_fails_and_says_why(service: Service) -> None:
    error = errors.DataLoss("its archive cannot be read", reason="PACKAGE_CORRUPT")
    service.packages.broken[f"{MODEL}/packages/1"] = error
    deployment = await service.deployed(spec({"1": 100}))
    assert (deployment.rollout.state, deployment.rollout.reason) == (RolloutState.FAILED, "PACKAGE_CORRUPT")
    assert condition(deployment, "PackagesResolved")[:2] == (Truth.FALSE, "PACKAGE_CORRUPT")
    service.packages.broken.clear()
    again = await service.deployed(spec({"1": 100}), force=True)
    assert again.rollout.state is RolloutState.COMPLETE


async def test_a_package_service_that_is_away_is_tried_again_until_it_is_back(service: Service) -> None:
    service.packages.broken[f"{MODEL}/packages/1"] = errors.Unavailable(
        "connection refused", reason="UNAVAILABLE"
    )
    await service.apply(spec({"1": 100}))
    for _ in range(8):
        await service.look()
    deployment = await service.deployments.get(NAME)
    assert deployment.rollout.phase is Phase.RESOLVE
    assert deployment.status.attempt is not None
    assert deployment.status.attempt.count > 1
    assert "connection refused" in deployment.status.attempt.message
    service.packages.broken.clear()
    assert (await service.settle()).rollout.state is RolloutState.COMPLETE  # type: ignore[union-attr]


async def test_no_capacity_is_told_and_waited_for_up_to_the_ready_timeout(service: Service) -> None:
    service.cluster.capacity = 1
    await service.apply(spec({"1": 100}, version("1", 2), ready_timeout=20.0))
    for _ in range(6):
        await service.look()
    deployment = await service.deployments.get(NAME)
    assert deployment.status.attempt is not None
    assert deployment.status.attempt.reason == "NO_CAPACITY"
    ended = await service.settle(looks=200)
    assert ended is not None
    assert (ended.rollout.state, ended.rollout.reason) == (RolloutState.FAILED, "READY_TIMEOUT")
    assert "room for 1 replicas" in ended.rollout.message


async def test_a_gateway_that_is_away_is_told_by_a_condition_and_stops_nothing(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    service.gateway.down = True
    await service.apply(spec({"2": 100}))
    for _ in range(20):
        await service.look()
    deployment = await service.deployments.get(NAME)
    assert condition(deployment, "GatewayReachable")[:2] == (Truth.FALSE, "GATEWAY_UNREACHABLE")
    assert service.cluster.stopped == []
    assert "1" in service.running
    service.gateway.down = False
    await service.settle()
    assert service.weights == {"2": 100}
    assert service.running == ["2"]


async def test_a_crash_looping_version_goes_back_and_the_log_is_in_the_history(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    await service.apply(spec({"2": 100}))
    for _ in range(2):
        await service.look()
    service.cluster.initial = ReplicaState.STARTING
    await service.look()
    service.cluster.become(ReplicaState.CRASH_LOOPING, "exit code 1; ImportError: torch", version="2")
    await service.settle()
    failed = await service.deployments.revision(NAME, 2)
    assert "ImportError: torch" in failed.state_message
    assert service.weights == {"1": 100}
    assert service.running == ["1"]


async def test_a_failed_gate_goes_back_within_the_same_trace(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    service.gateway.samples = {"2": TrafficSample(200, 50)}
    gate = Gate(max_error_rate=0.05, min_requests=100)
    await service.deployed(spec({"2": 100}, steps=(Step(10),), gate=gate))
    failed = await service.deployments.revision(NAME, 2)
    assert failed.state is RolloutState.ROLLED_BACK
    assert "50 of 200 requests failed" in failed.state_message
    assert service.weights == {"1": 100}
    routed = [dict(w.weights) for w in service.gateway.writes]
    assert routed == [{"1": 100}, {"1": 90, "2": 10}, {"1": 100}]


async def test_a_failure_that_pauses_waits_for_a_person(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    service.cluster.initial = ReplicaState.CRASH_LOOPING
    deployment = await service.deployed(spec({"2": 100}, on_failure=FailureAction.PAUSE))
    assert deployment.rollout.state is RolloutState.PAUSED
    aborted = await service.deployments.abort(NAME, etag="", author="eve", message="")
    assert aborted.revision == 3
    await service.settle()
    assert service.weights == {"1": 100}
    assert (await service.deployments.revision(NAME, 3)).cause is Cause.ABORT


async def test_promotion_pause_and_resume_are_in_the_history_with_their_author(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    await service.deployed(spec({"2": 100}, steps=(Step(10, manual_promotion=True), Step(50))))
    await service.deployments.pause(NAME, etag="", author="bob")
    assert (await service.settle()).rollout.state is RolloutState.PAUSED  # type: ignore[union-attr]
    await service.deployments.resume(NAME, etag="", author="bob")
    assert (await service.settle()).rollout.state is RolloutState.AWAITING_PROMOTION  # type: ignore[union-attr]
    await service.deployments.promote(NAME, etag="", author="carol", to_completion=False)
    await service.settle()
    steps = (await service.deployments.revision(NAME, 2)).steps
    assert [(s.message, s.author) for s in steps if s.author] == [
        ("fetching and verifying packages", "ada"),
        ("paused", "bob"),
        ("resumed", "bob"),
        ("promoted", "carol"),
    ]
    assert service.weights == {"2": 100}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("promote", "ROLLOUT_ENDED"),
        ("pause", "ROLLOUT_ENDED"),
        ("resume", "ROLLOUT_NOT_PAUSED"),
        ("abort", "ROLLOUT_ENDED"),
    ],
)
async def test_what_makes_no_sense_after_the_end_is_refused(service: Service, call: str, reason: str) -> None:
    await service.deployed(spec({"1": 100}))
    more = {"promote": {"to_completion": False}, "abort": {"message": ""}}.get(call, {})
    with pytest.raises(errors.FailedPrecondition) as raised:
        await getattr(service.deployments, call)(NAME, etag="", author="", **more)
    assert raised.value.reason == reason


async def test_rolling_back_is_a_new_revision_of_the_newest_complete_one(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    await service.deployed(spec({"2": 100}))
    made = await service.deployments.roll_back(NAME, None, etag="", author="dan", message="")
    await service.settle()
    assert made.revision == 3
    assert service.weights == {"1": 100}
    revision = await service.deployments.revision(NAME, 3)
    assert (revision.cause, revision.restored, revision.author) == (Cause.ROLLBACK, 1, "dan")


async def test_rolling_back_without_an_earlier_revision_is_refused(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    with pytest.raises(errors.FailedPrecondition) as raised:
        await service.deployments.roll_back(NAME, None, etag="", author="", message="")
    assert raised.value.reason == "NO_EARLIER_REVISION"


async def test_a_superseded_rollout_ends_its_entry_and_its_spans(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    await service.deployed(spec({"2": 100}, steps=(Step(10, manual_promotion=True),)))
    await service.deployed(spec({"3": 100}))
    assert (await service.deployments.revision(NAME, 2)).state is RolloutState.SUPERSEDED
    assert len(service.tracer.rollouts) == 3
    assert service.running == ["3"]


async def test_deletion_takes_route_then_replicas_then_everything(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    service.cluster.lingering = True
    await service.deployments.delete(NAME, etag="", author="ada")
    await service.look()
    await service.look()
    assert service.weights == {}
    assert len(service.cluster.replicas) == 1
    with pytest.raises(errors.FailedPrecondition, match="being deleted"):
        await service.apply(spec({"1": 100}))
    service.cluster.replicas.clear()
    assert await service.settle() is None


async def test_a_second_deployment_of_a_model_is_refused(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    other = type(NAME)("digits", "other")
    with pytest.raises(errors.AlreadyExists, match="one deployment"):
        await service.deployments.apply(other, spec({"1": 100}), etag="", author="", message="", force=False)


async def test_events_tell_what_happened_in_order(service: Service) -> None:
    await service.deployed(spec({"1": 100}))
    events = await service.history.events(NAME, 0, 1000)
    assert events[0].type is EventType.REVISION_CREATED
    phases = [e.phase for e in events if e.type is EventType.PHASE_CHANGED]
    assert phases == [Phase.PLACE, Phase.WAIT, Phase.SHIFT, Phase.DRAIN, Phase.DONE]
    assert [e.shares.describe() for e in events if e.type is EventType.TRAFFIC_SHIFTED] == ["1: 100 %"]
    assert [e.sequence for e in events] == sorted({e.sequence for e in events})


class Killed(BaseException):
    """Stands for `kill -9`: nothing catches it."""


POINTS = (
    "observed",
    "fetch_package",
    "place_replica",
    "acted",
    "recorded",
    "shift_traffic",
    "stop_replica",
    "delete_route",
)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_killed_at_any_point_it_carries_on_and_does_nothing_twice(
    service: Service, point: str, times: int
) -> None:
    passed = 0

    def fault(name: str) -> None:
        nonlocal passed
        passed += name == point
        if name == point and passed % times == 0 and passed <= 3 * times:
            raise Killed

    async def settle() -> None:
        for _ in range(60):
            try:
                if await service.settle(looks=1) is None:
                    return
            except Killed:
                service.start()

    service.fault = fault
    await service.apply(spec({"1": 100}, version("1", 2)))
    await settle()
    await service.apply(spec({"2": 100}, version("2", 2), steps=(Step(10), Step(50))))
    await settle()
    assert service.weights == {"2": 100}
    assert service.running == ["2", "2"]
    assert len(service.cluster.placed) == len(set(service.cluster.placed)) == 4
    routed = [dict(w.weights) for w in service.gateway.writes]
    assert routed == [{"1": 100}, {"1": 90, "2": 10}, {"1": 50, "2": 50}, {"2": 100}]
    await service.deployments.delete(NAME, etag="", author="")
    await settle()
    assert await service.store.read(NAME) is None
    assert service.cluster.replicas == {}
    assert passed, "the point was never passed"
