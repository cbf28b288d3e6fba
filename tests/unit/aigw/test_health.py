"""When a replica is put aside, for how long, and how it comes back."""

import pytest
from aigw.domain.endpoint import Endpoint
from aigw.domain.health import ANSWERED, Failure, Replica, classify
from aigw.domain.retry import BURST, RetryBudget
from aigw.domain.route import EjectionPolicy
from chassis import errors

POLICY = EjectionPolicy(consecutive_failures=3, base_ejection=1.0, max_ejection=5.0)


@pytest.fixture
def replica() -> Replica:
    return Replica(Endpoint("p", "m", "a", "1", "h:1"), "lease", object(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        pytest.param(
            errors.Unavailable("refused", reason="UNAVAILABLE"), Failure.UNREACHABLE, id="no answer"
        ),
        pytest.param(
            errors.Unavailable("full", reason="X", details=b"s"), Failure.FAULT, id="says it is unavailable"
        ),
        pytest.param(errors.Unavailable("503", reason=ANSWERED), Failure.FAULT, id="HTTP 503"),
        pytest.param(errors.Internal("boom", reason="X"), Failure.FAULT, id="internal"),
        pytest.param(errors.UnknownError("boom", reason="X"), Failure.FAULT, id="unknown"),
        pytest.param(errors.DataLoss("boom", reason="X"), Failure.FAULT, id="data loss"),
        pytest.param(errors.InvalidArgument("shape", reason="X"), Failure.NONE, id="bad input"),
        pytest.param(errors.NotFound("no", reason="X"), Failure.NONE, id="not found"),
        pytest.param(errors.ResourceExhausted("queue", reason="X"), Failure.NONE, id="overload"),
        pytest.param(errors.DeadlineExceeded("late", reason="X"), Failure.NONE, id="caller's deadline"),
        pytest.param(errors.Cancelled("", reason="X"), Failure.UNREACHABLE, id="server stopped"),
        pytest.param(errors.Cancelled("no", reason="X", details=b"s"), Failure.NONE, id="says cancelled"),
    ],
)
def test_classify(error: errors.Error, failure: Failure) -> None:
    assert classify(error) is failure


def test_faults_in_a_row_put_a_replica_aside(replica: Replica) -> None:
    assert [replica.failed(Failure.FAULT, POLICY, 10.0) for _ in range(3)] == [False, False, True]
    assert replica.ejected_until == 11.0
    assert not replica.unreachable


def test_an_answer_in_between_forgives(replica: Replica) -> None:
    replica.failed(Failure.FAULT, POLICY, 10.0)
    replica.failed(Failure.FAULT, POLICY, 10.0)
    replica.succeeded()
    assert not replica.failed(Failure.FAULT, POLICY, 10.0)


def test_an_unreachable_replica_is_put_aside_at_once(replica: Replica) -> None:
    assert replica.failed(Failure.UNREACHABLE, POLICY, 10.0)
    assert replica.unreachable


def test_one_that_fails_again_after_its_return_stays_away_twice_as_long(replica: Replica) -> None:
    durations, now = [], 0.0
    for _ in range(5):
        assert replica.failed(Failure.UNREACHABLE, POLICY, now)
        durations.append(replica.ejected_until - now)
        now = replica.ejected_until
        replica.readmit()
    assert durations == [1.0, 2.0, 4.0, 5.0, 5.0]
    replica.succeeded()
    replica.failed(Failure.UNREACHABLE, POLICY, 100.0)
    assert replica.ejected_until == 101.0


def test_failures_of_attempts_that_began_before_the_ejection_do_not_prolong_it(replica: Replica) -> None:
    replica.failed(Failure.UNREACHABLE, POLICY, 10.0)
    assert not replica.failed(Failure.UNREACHABLE, POLICY, 10.5)
    assert replica.ejected_until == 11.0


def test_ejection_can_be_switched_off(replica: Replica) -> None:
    off = EjectionPolicy(1, 1.0, 1.0, disabled=True)
    assert not any(replica.failed(Failure.UNREACHABLE, off, 1.0) for _ in range(9))


def test_retries_beyond_the_burst_are_a_share_of_the_calls() -> None:
    budget = RetryBudget(20.0, 0.0, now=0.0)
    assert sum(budget.take(0.0) for _ in range(2000)) == BURST
    budget.calls += 100
    assert sum(budget.take(0.0) for _ in range(100)) == 20


def test_a_few_retries_a_second_are_allowed_however_few_calls_there_are() -> None:
    budget = RetryBudget(0.0, 10.0, now=0.0)
    while budget.take(0.0):
        pass
    assert sum(budget.take(2.0) for _ in range(100)) == 20
