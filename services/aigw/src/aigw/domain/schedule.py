"""Weights turned into a cycle: which version answers the n-th call.

The cycle is computed when the table is built, so that picking is one step of an index. Each version's turns
are spread evenly by the divisor method of Webster and Sainte-Laguë: the k-th turn of a version with weight
w stands at (k + 1/2) / w of the cycle. Like nginx's smooth weighted round robin it never bunches a
version's turns, and unlike it needs no walk over all versions per call.
"""

from functools import lru_cache
from math import gcd

MAX_LENGTH = 10_000
"""Longest cycle. Weights whose reduced sum is larger are rounded to shares of 1 / MAX_LENGTH (0.01 %)."""


def reduce_weights(weights: tuple[int, ...], max_length: int = MAX_LENGTH) -> tuple[int, ...]:
    """The smallest turns per cycle in the weights' proportion; rounded by largest remainder if too many.

    A weight above 0 keeps at least one turn, so that a declared version is never starved by rounding.
    """
    divisor = gcd(*weights)
    if divisor == 0:
        return tuple(0 for _ in weights)
    turns = tuple(weight // divisor for weight in weights)
    if sum(turns) <= max_length:
        return turns
    return _round(turns, max_length)


def _round(weights: tuple[int, ...], length: int) -> tuple[int, ...]:
    total = sum(weights)
    turns = [max(1, weight * length // total) if weight else 0 for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(weights[i] * length % total), i))
    for index in by_remainder:
        if sum(turns) >= length:
            break
        if weights[index]:
            turns[index] += 1
    while sum(turns) > length:  # many tiny weights were lifted to one turn: the largest gives way
        turns[turns.index(max(turns))] -= 1
    divisor = gcd(*turns)
    return tuple(turn // divisor for turn in turns)


@lru_cache(maxsize=1024)
def cycle(weights: tuple[int, ...], max_length: int = MAX_LENGTH) -> tuple[int, ...]:
    """Indexes into `weights`, in the order in which they take turns. Empty if all weights are 0."""
    turns = reduce_weights(weights, max_length)
    positions = [
        ((2 * turn + 1) / count, index) for index, count in enumerate(turns) for turn in range(count) if count
    ]
    positions.sort()
    return tuple(index for _, index in positions)
