"""Shares of traffic: exact integer arithmetic in parts of ten thousand."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WHOLE = 10_000


@dataclass(frozen=True, slots=True)
class Shares:
    """The part of the traffic of each version, in parts of 10,000 that add up to it (or nothing at all).

    A version with 0 parts can be called by its name.
    """

    parts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, int] | Iterable[tuple[str, int]]) -> "Shares":
        """Shares from parts of 10,000, in order of version."""
        return cls(tuple(sorted(dict(parts).items())))

    @classmethod
    def percent(cls, percents: Mapping[str, int]) -> "Shares":
        """Shares from percents."""
        return cls.of({version: percent * 100 for version, percent in percents.items()})

    @classmethod
    def from_weights(cls, weights: Iterable[tuple[str, int]]) -> "Shares":
        """Shares from relative weights."""
        pairs = dict(weights)
        total = sum(pairs.values())
        if total <= 0:
            return cls()
        return _rounded({version: weight * WHOLE / total for version, weight in pairs.items()})

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __getitem__(self, version: str) -> int:
        return dict(self.parts).get(version, 0)

    @property
    def versions(self) -> frozenset[str]:
        """Versions with a share above 0."""
        return frozenset(version for version, part in self.parts if part > 0)

    def weights(self) -> tuple[tuple[str, int], ...]:
        """The smallest whole numbers that are in the same proportion; percents where they are whole."""
        if all(part % 100 == 0 for _, part in self.parts):
            return tuple((version, part // 100) for version, part in self.parts)
        divisor = math.gcd(*(part for _, part in self.parts))
        return tuple((version, part // divisor) for version, part in self.parts)

    def same_split(self, other: "Shares") -> bool:
        """Whether traffic is divided alike; versions with 0 parts do not matter."""
        return {v: p for v, p in self.parts if p} == {v: p for v, p in other.parts if p}

    def describe(self) -> str:
        """For a person: `1: 90 %, 2: 10 %`."""
        return ", ".join(f"{version}: {part / 100:g} %" for version, part in self.parts) or "no traffic"


NOTHING = Shares()


def blend(before: Shares, after: Shares, percent: int) -> Shares:
    """The shares when `percent` of the way from `before` to `after` is done. Nothing before: `after`."""
    if not before or percent >= 100:
        return after
    mixed = {
        version: (before[version] * (100 - percent) + after[version] * percent) / 100
        for version in {v for v, _ in before.parts} | {v for v, _ in after.parts}
    }
    return _rounded(mixed)


def _rounded(exact: Mapping[str, float]) -> Shares:
    """Largest-remainder rounding, so that the parts add up; ties go by version, so that it is repeatable."""
    floors = {version: math.floor(value) for version, value in exact.items()}
    missing = WHOLE - sum(floors.values())
    order = sorted(exact, key=lambda version: (floors[version] - exact[version], version))
    for version in order[:missing]:
        floors[version] += 1
    return Shares.of(floors)
