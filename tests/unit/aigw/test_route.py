"""What makes a declared route valid."""

import pytest
from aigw.domain.route import (
    DEFAULT_POLICY,
    EjectionPolicy,
    RetryPolicy,
    Route,
    RoutePolicy,
    Target,
    check_route,
    effective_policy,
    set_weights,
)
from chassis import errors
from chassis.errors import Code


def _route(*targets: Target, policy: RoutePolicy | None = None) -> Route:
    return Route("digits", "classifier", targets, policy or RoutePolicy())


@pytest.mark.parametrize(
    ("route", "field", "reason"),
    [
        pytest.param(_route(), "route.targets", "TARGETS_EMPTY", id="no target"),
        pytest.param(
            _route(Target("1", 0), Target("2", 0)), "route.targets", "WEIGHTS_ALL_ZERO", id="all zero"
        ),
        pytest.param(
            _route(Target("1", 1), Target("2", 1), Target("1", 2)),
            "route.targets[2].version",
            "VERSION_DUPLICATE",
            id="same version twice",
        ),
        pytest.param(
            _route(Target("1", -1)), "route.targets[0].weight", "WEIGHT_OUT_OF_RANGE", id="negative"
        ),
        pytest.param(
            _route(Target("1", 1_000_001)), "route.targets[0].weight", "WEIGHT_OUT_OF_RANGE", id="too heavy"
        ),
        pytest.param(
            _route(
                Target("1", 1),
                policy=RoutePolicy(retry=RetryPolicy(codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT))),
            ),
            "route.policy.retry.codes[1]",
            "CODE_NOT_RETRYABLE",
            id="code that must not be retried",
        ),
        pytest.param(
            _route(
                Target("1", 1),
                policy=RoutePolicy(ejection=EjectionPolicy(base_ejection=5.0, max_ejection=1.0)),
            ),
            "route.policy.outlier_ejection.base_ejection",
            "EJECTION_RANGE",
            id="base ejection beyond the longest",
        ),
    ],
)
def test_an_invalid_declaration_is_refused_with_its_field(route: Route, field: str, reason: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        check_route(route)
    assert [(v.field, v.reason) for v in caught.value.violations] == [(field, reason)]
    assert field in caught.value.message


def test_all_violations_are_told_at_once() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"and 1 more") as caught:
        check_route(_route(Target("1", -1), Target("1", 1)))
    assert len(caught.value.violations) == 2


def test_a_policy_that_says_nothing_takes_the_defaults() -> None:
    assert effective_policy(RoutePolicy()) == DEFAULT_POLICY


def test_what_a_policy_says_wins_over_the_defaults() -> None:
    policy = effective_policy(
        RoutePolicy(timeout=2.0, retry=RetryPolicy(max_attempts=1), divert_unready=False)
    )
    assert (policy.timeout, policy.retry.max_attempts, policy.divert_unready) == (2.0, 1, False)
    assert policy.retry.codes == DEFAULT_POLICY.retry.codes


def test_setting_weights_keeps_labels_adds_versions_and_zeroes_the_unnamed() -> None:
    targets = (Target("1", 90, {"zone": "a"}), Target("2", 10))
    assert set_weights(targets, {"1": 50, "3": 50}, prune=False) == (
        Target("1", 50, {"zone": "a"}),
        Target("2", 0),
        Target("3", 50),
    )
    assert set_weights(targets, {"3": 1}, prune=True) == (Target("3", 1),)
