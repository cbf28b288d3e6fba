"""Weights become a cycle that splits exactly and evenly."""

from collections import Counter
from itertools import groupby
from math import gcd

import pytest
from aigw.domain.schedule import MAX_LENGTH, cycle, reduce_weights
from hypothesis import given
from hypothesis import strategies as st

small_weights = st.lists(st.integers(0, 60), min_size=1, max_size=8).map(tuple)
huge_weights = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=64).map(tuple)


@given(small_weights)
def test_every_version_has_exactly_its_share_of_a_cycle(weights: tuple[int, ...]) -> None:
    turns = Counter(cycle(weights))
    divisor = gcd(*weights) or 1
    assert [turns[index] for index in range(len(weights))] == [weight // divisor for weight in weights]


@given(small_weights)
def test_any_stretch_of_calls_is_close_to_the_shares(weights: tuple[int, ...]) -> None:
    order = cycle(weights) * 2
    total = sum(weights)
    seen: Counter[int] = Counter()
    for length, index in enumerate(order, start=1):
        seen[index] += 1
        for version, weight in enumerate(weights):
            # Webster's method keeps every prefix within one turn per other version, and mostly within one.
            assert abs(seen[version] - length * weight / total) < max(1.5, len(weights) / 2)


@given(st.integers(1, 200), st.integers(1, 200))
def test_of_two_versions_neither_waits_longer_than_its_share_demands(a: int, b: int) -> None:
    order = cycle((a, b))
    rotated = order[order.index(1 if a >= b else 0) :] + order[: order.index(1 if a >= b else 0)]
    longest = max(len(list(run)) for _, run in groupby(rotated))
    assert longest <= -(-max(a, b) // min(a, b)) + 1


@given(huge_weights)
def test_huge_weights_are_rounded_to_a_bounded_cycle(weights: tuple[int, ...]) -> None:
    turns = reduce_weights(weights)
    assert sum(turns) <= MAX_LENGTH
    assert all((turn > 0) == (weight > 0) for turn, weight in zip(turns, weights, strict=True))
    total = sum(weights)
    for turn, weight in zip(turns, weights, strict=True):
        if total and turn > 1:
            tiny = sum(0 < other * MAX_LENGTH < total for other in weights)
            assert abs(turn / sum(turns) - weight / total) <= (1 + tiny) / MAX_LENGTH + 1e-9


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param((1,), (0,), id="one version"),
        pytest.param((100,), (0,), id="one version, reduced"),
        pytest.param((1, 1), (0, 1), id="halves"),
        pytest.param((90, 10), (0, 0, 0, 0, 0, 1, 0, 0, 0, 0), id="ninety to ten"),
        pytest.param((0, 3), (1,), id="zero takes no turn"),
        pytest.param((0, 0), (), id="nobody takes a turn"),
        pytest.param((2, 1, 1), (0, 1, 2, 0), id="half and two quarters"),
    ],
)
def test_cycle(weights: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert cycle(weights) == expected
