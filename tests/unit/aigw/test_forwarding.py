"""The policy of calls: what is tried again, where, how often, until when; and what the caller is told."""

import asyncio
from collections import Counter

import pytest
from aigw.domain.route import EjectionPolicy, RetryPolicy, RoutePolicy
from aigw.domain.table import Face
from chassis import errors
from chassis.errors import Code

REFUSED = errors.Unavailable("connection refused", reason="UNAVAILABLE")
BUSY = errors.Unavailable("warming up", reason="WARMING_UP", details=b"x")
BROKEN = errors.Internal("boom", reason="INTERNAL", details=b"x")
BAD = errors.InvalidArgument("wrong shape", reason="SHAPE", details=b"x")
SHED = errors.DeadlineExceeded("shed", reason="SHED", details=b"x")
TIMEOUT = errors.DeadlineExceeded("Deadline Exceeded", reason="DEADLINE_EXCEEDED")


async def test_weights_decide_versions_and_replicas_take_turns(gateway) -> None:
    await gateway.route(("1", 3), ("2", 1))
    for name, version in (("a", "1"), ("b", "1"), ("c", "2")):
        await gateway.register(name, version)
    assert Counter(await gateway.infer_many(80)) == {"a": 30, "b": 30, "c": 20}


async def test_a_version_asked_for_is_given_whatever_the_weights_say(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a", "1")
    await gateway.register("trial", "2")
    assert set(await gateway.infer_many(3, version="2")) == {"trial"}
    assert set(await gateway.infer_many(3)) == {"a"}


async def test_probes_do_not_shift_the_split(gateway) -> None:
    await gateway.route(("1", 1), ("2", 1))
    await gateway.register("a", "1")
    await gateway.register("b", "2")
    answers = []
    for _ in range(10):
        await gateway.infer(probe=True)
        answers.append(await gateway.infer())
    assert Counter(answers) == {"a": 5, "b": 5}


async def test_a_dead_replica_fails_no_call_and_is_put_aside(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(REFUSED)
    assert set(await gateway.infer_many(50)) == {"b"}
    assert len(gateway.replicas["a"].calls) == 1
    assert gateway.traffic.series("digits/classifier", "1").total.retries == 1
    assert gateway.traffic.series("digits/classifier", "1").ejections == 1


async def test_a_server_that_cancels_what_it_still_has_fails_no_call(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(errors.Cancelled("CANCELLED", reason="CANCELLED"))
    assert set(await gateway.infer_many(10)) == {"b"}
    await gateway.registry.deregister("projects/digits/models/classifier/endpoints/b")
    with pytest.raises(errors.Unavailable, match="could not be reached"):
        await gateway.infer()


async def test_a_replica_returns_when_its_time_is_over(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    task = asyncio.create_task(gateway.router.run_readmission())
    try:
        gateway.replicas["a"].fails(REFUSED)
        await gateway.infer_many(4)
        gateway.replicas["a"].recovers()
        await gateway.clock.advance(0.9)
        assert set(await gateway.infer_many(4)) == {"b"}
        await gateway.clock.advance(0.2)
        assert Counter(await gateway.infer_many(4)) == {"a": 2, "b": 2}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_dead_version_hands_its_calls_to_another_one(gateway) -> None:
    await gateway.route(("1", 1), ("2", 1))
    await gateway.register("a", "1")
    await gateway.register("b", "2")
    gateway.replicas["b"].fails(REFUSED)
    assert set(await gateway.infer_many(20)) == {"a"}
    assert len(gateway.replicas["b"].calls) == 1


async def test_a_call_for_one_version_never_goes_to_another(gateway) -> None:
    await gateway.route(("1", 1), ("2", 1))
    await gateway.register("a", "1")
    await gateway.register("b", "2")
    gateway.replicas["b"].fails(REFUSED)
    with pytest.raises(
        errors.Unavailable, match=r"version 2 could not be reached in 1 attempt.*refused"
    ) as caught:
        await gateway.infer(version="2")
    assert caught.value.reason == "UPSTREAM_UNREACHABLE"
    assert not gateway.replicas["a"].calls


async def test_a_route_that_forbids_diverting_keeps_versions_apart(gateway) -> None:
    await gateway.route(("1", 1), ("2", 1), policy=RoutePolicy(divert_unready=False))
    await gateway.register("a", "1")
    await gateway.register("b", "2")
    gateway.replicas["b"].fails(REFUSED)
    assert await gateway.infer() == "a"
    with pytest.raises(errors.Unavailable):
        await gateway.infer()


@pytest.mark.parametrize("error", [BROKEN, BAD, SHED], ids=["internal", "bad input", "shed"])
async def test_what_is_not_safe_is_not_tried_again_and_passes_through_untouched(gateway, error) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(error)
    with pytest.raises(type(error)) as caught:
        await gateway.infer()
    assert caught.value is error
    assert not gateway.replicas["b"].calls


async def test_a_policy_may_name_codes_to_try_again(gateway) -> None:
    await gateway.route(("1", 1), policy=RoutePolicy(retry=RetryPolicy(codes=(Code.INTERNAL,))))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(BROKEN)
    assert await gateway.infer() == "b"


async def test_attempts_are_limited(gateway) -> None:
    await gateway.route(("1", 1))
    for name in "abcde":
        await gateway.register(name)
        gateway.replicas[name].fails(BUSY)
    exchange = gateway.exchange()
    with pytest.raises(errors.Unavailable, match="warming up"):
        await gateway.infer(exchange)
    assert exchange.attempts == 3
    assert sum(len(replica.calls) for replica in gateway.replicas.values()) == 3


async def test_a_policy_of_one_attempt_is_obeyed(gateway) -> None:
    await gateway.route(("1", 1), policy=RoutePolicy(retry=RetryPolicy(max_attempts=1)))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(REFUSED)
    with pytest.raises(errors.Unavailable, match="in 1 attempt"):
        await gateway.infer()


async def test_retries_end_with_the_budget(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    budget = gateway.router.table.find("digits/classifier").budget
    while budget.take(gateway.clock.monotonic()):
        pass
    gateway.replicas["a"].fails(BUSY)
    with pytest.raises(errors.Unavailable):
        await gateway.infer()


async def test_faults_in_a_row_put_a_replica_aside_but_not_the_callers_mistakes(gateway) -> None:
    policy = RoutePolicy(ejection=EjectionPolicy(consecutive_failures=3))
    await gateway.route(("1", 1), policy=policy)
    await gateway.register("a")
    await gateway.register("b")

    async def outcome() -> str:
        try:
            return await gateway.infer()
        except errors.Error as error:
            return error.code.name

    gateway.replicas["a"].fails(BAD)
    assert Counter([await outcome() for _ in range(20)]) == {"INVALID_ARGUMENT": 10, "b": 10}
    gateway.replicas["a"].fails(BROKEN)
    assert Counter([await outcome() for _ in range(20)]) == {"INTERNAL": 3, "b": 17}


async def test_an_expired_deadline_reaches_no_replica(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await gateway.infer(timeout=0.0)
    assert caught.value.reason == "DEADLINE_EXPIRED"
    assert not gateway.replicas["a"].calls


async def test_the_nearer_of_the_callers_and_the_routes_deadline_counts(gateway) -> None:
    await gateway.route(("1", 1), policy=RoutePolicy(timeout=5.0))
    await gateway.register("a")
    now = gateway.clock.monotonic()
    for timeout in (None, 2.0, 9.0):
        await gateway.infer(timeout=timeout)
    assert [deadline - now for deadline in gateway.replicas["a"].deadlines] == pytest.approx([5.0, 2.0, 5.0])


async def test_a_replica_that_does_not_answer_in_time_is_told_with_the_time(gateway) -> None:
    await gateway.route(("1", 1), policy=RoutePolicy(timeout=5.0))
    await gateway.register("a")

    async def late(payload: bytes) -> bytes:
        await gateway.clock.advance(5.0)
        raise TIMEOUT

    gateway.replicas["a"].behaviour = late
    with pytest.raises(errors.DeadlineExceeded, match=r"endpoint a .* did not answer within 5 s") as caught:
        await gateway.infer()
    assert caught.value.reason == "UPSTREAM_TIMEOUT"


async def test_an_attempt_over_its_own_time_is_tried_elsewhere(gateway) -> None:
    policy = RoutePolicy(timeout=10.0, retry=RetryPolicy(per_try_timeout=2.0))
    await gateway.route(("1", 1), policy=policy)
    await gateway.register("a")
    await gateway.register("b")

    async def late(payload: bytes) -> bytes:
        await gateway.clock.advance(2.0)
        raise TIMEOUT

    gateway.replicas["a"].behaviour = late
    exchange = gateway.exchange()
    assert await gateway.infer(exchange) == "b"
    assert exchange.attempts == 2


async def test_callers_with_hasty_deadlines_do_not_put_a_replica_aside(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")

    async def late(payload: bytes) -> bytes:
        await gateway.clock.advance(0.1)
        raise TIMEOUT

    gateway.replicas["a"].behaviour = late
    for _ in range(10):
        with pytest.raises(errors.DeadlineExceeded):
            await gateway.infer(timeout=0.1)
    assert not gateway.router.replica("digits/classifier", "a").ejected


async def test_a_caller_that_goes_away_is_counted_as_cancelled(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")

    async def forever(payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    gateway.replicas["a"].behaviour = forever
    task = asyncio.create_task(gateway.infer())
    await gateway.clock.settle()
    assert gateway.router.replica("digits/classifier", "a").in_flight == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gateway.router.replica("digits/classifier", "a").in_flight == 0
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.CANCELLED: 1}


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        pytest.param(
            {"model": "digits/clasifier"}, errors.NotFound, r"routed models: digits/classifier", id="model"
        ),
        pytest.param({"model": "classifier"}, errors.NotFound, r"named project/model", id="no project"),
        pytest.param({"model": ""}, errors.InvalidArgument, r"names no model", id="no model"),
        pytest.param({"version": "7"}, errors.NotFound, r"no version '7'; its versions: 1, 2", id="version"),
        pytest.param({"version": "2"}, errors.Unavailable, r"version 2 has no ready replica", id="not ready"),
        pytest.param(
            {"face": Face.REST}, errors.Unavailable, r"no ready replica that answers REST", id="face"
        ),
    ],
)
async def test_what_cannot_be_routed_is_told_with_what_would_be_right(gateway, asked, error, text) -> None:
    await gateway.route(("1", 1), ("2", 1))
    await gateway.register("a", "1", http=False)
    with pytest.raises(error, match=text):
        await gateway.infer(**asked)


async def test_endpoints_without_a_route_are_told(gateway) -> None:
    await gateway.register("a", "3")
    with pytest.raises(errors.NotFound, match="no route, though endpoints of version 3 are registered"):
        await gateway.infer()


async def test_invented_models_share_one_series(gateway) -> None:
    for number in range(100):
        with pytest.raises(errors.NotFound):
            await gateway.infer(model=f"p/{number}")
    assert [(key, series.total.requests) for key, _, series in gateway.traffic] == [("", 100)]


async def test_calls_in_flight_finish_on_a_replica_that_left(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    replica = gateway.replicas["a"]
    release = asyncio.Event()

    async def slow(payload: bytes) -> bytes:
        await release.wait()
        return b"done"

    replica.behaviour = slow
    task = asyncio.create_task(gateway.infer())
    await gateway.clock.settle()
    await gateway.registry.deregister("projects/digits/models/classifier/endpoints/a")
    assert await gateway.router.retire_once() == 1
    assert not replica.closed
    release.set()
    assert await task == "done"
    assert await gateway.router.retire_once() == 0
    assert replica.closed


async def test_a_replica_that_left_is_closed_at_last_whatever_is_in_flight(gateway) -> None:
    await gateway.route(("1", 1))
    await gateway.register("a")
    gateway.router.replica("digits/classifier", "a").in_flight = 1
    await gateway.registry.deregister("projects/digits/models/classifier/endpoints/a")
    task = asyncio.create_task(gateway.router.run_retirement())
    try:
        await gateway.clock.advance(299.0)
        assert not gateway.replicas["a"].closed
        await gateway.clock.advance(2.0)
        assert gateway.replicas["a"].closed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
