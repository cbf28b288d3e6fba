"""What happened on the routes, counted: cumulative numbers for metrics and a recent window for questions.

Recording is the last step of every call, so it is a handful of additions into slots that exist already.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log

from chassis.errors import Code

_LOWEST = 1e-4
_GROWTH = 1.15
BUCKETS = 100
"""Latency buckets: 15 % wide, from 0.1 ms; the last one begins at 102 s and has no end."""
_SCALE = 1.0 / log(_GROWTH)

ERROR_CODES = frozenset(
    {
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
        Code.UNIMPLEMENTED,
        Code.RESOURCE_EXHAUSTED,
    }
)
"""Codes that count as errors of a version: what the server or the model is to blame for."""


def bucket_of(seconds: float) -> int:
    """Index of the bucket that a latency falls into."""
    if seconds <= _LOWEST:
        return 0
    return min(BUCKETS - 1, int(log(seconds / _LOWEST) * _SCALE) + 1)


def upper_bound(index: int) -> float:
    """Largest latency of a bucket, in seconds."""
    return _LOWEST * _GROWTH**index


class Counts:
    """Numbers of calls. Latencies are those of successful calls, in seconds."""

    __slots__ = (
        "codes",
        "histogram",
        "latency_max",
        "latency_sum",
        "request_bytes",
        "requests",
        "response_bytes",
        "retries",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.codes: dict[Code, int] = {}
        self.histogram: dict[int, int] = {}
        self.latency_sum = 0.0
        self.latency_max = 0.0
        self.retries = 0
        self.request_bytes = 0
        self.response_bytes = 0

    def record(
        self, code: Code, latency: float, attempts: int, request_bytes: int, response_bytes: int
    ) -> None:
        """Counts one call that ended."""
        self.requests += 1
        self.codes[code] = self.codes.get(code, 0) + 1
        self.request_bytes += request_bytes
        self.response_bytes += response_bytes
        if attempts > 1:
            self.retries += attempts - 1
        if code is Code.OK:
            self.latency_sum += latency
            if latency > self.latency_max:
                self.latency_max = latency
            bucket = bucket_of(latency)
            self.histogram[bucket] = self.histogram.get(bucket, 0) + 1

    def add(self, other: "Counts") -> None:
        """Adds what another has counted."""
        self.requests += other.requests
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        for bucket, count in other.histogram.items():
            self.histogram[bucket] = self.histogram.get(bucket, 0) + count
        self.latency_sum += other.latency_sum
        self.latency_max = max(self.latency_max, other.latency_max)
        self.retries += other.retries
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes

    @property
    def errors(self) -> int:
        """Calls that failed by the server's or the model's fault."""
        return sum(count for code, count in self.codes.items() if code in ERROR_CODES)

    @property
    def successes(self) -> int:
        """Calls that ended with OK."""
        return self.codes.get(Code.OK, 0)

    @property
    def mean(self) -> float:
        """Mean latency, 0 if there was no success."""
        return self.latency_sum / self.successes if self.successes else 0.0

    def quantile(self, q: float) -> float:
        """Latency that a share `q` of the successful calls stayed below; the bucket's upper bound, 0 if
        none.
        """
        rank = q * self.successes
        seen = 0
        for bucket in sorted(self.histogram):
            seen += self.histogram[bucket]
            if seen >= rank:
                return min(upper_bound(bucket), self.latency_max)
        return 0.0


_SET_BACK = 10
"""Slots that a wall clock may go back by without anything being dated anew."""


class Series:
    """Calls of one version of one model: all since the start, and those of the recent slots of time."""

    __slots__ = (
        "_current",
        "_limit",
        "_resolution",
        "_slot",
        "ejections",
        "slots",
        "total",
        "upstream_errors",
    )

    def __init__(self, resolution: float, slots: int) -> None:
        self._resolution = resolution
        self._limit = slots
        self._slot = -1
        self._current = Counts()
        self.total = Counts()
        self.upstream_errors: dict[Code, int] = {}
        self.ejections = 0
        self.slots: deque[tuple[int, Counts]] = deque()

    def record(
        self, now: float, code: Code, latency: float, attempts: int, request_bytes: int, response_bytes: int
    ) -> None:
        """Counts one call that ended at `now`, in seconds since the epoch."""
        slot = int(now / self._resolution)
        if slot != self._slot:
            self._turn(slot)
        self._current.record(code, latency, attempts, request_bytes, response_bytes)
        self.total.record(code, latency, attempts, request_bytes, response_bytes)

    def _turn(self, slot: int) -> None:
        """Goes on to another slot of time.

        A wall clock that was set back a little keeps counting into the newest slot. If it had been far ahead,
        that slot is in the future, out of sight of every query: what is dated later than now becomes now.
        """
        current = Counts()
        if slot < self._slot:
            if slot >= self._slot - _SET_BACK:
                return
            while self.slots and self.slots[-1][0] >= slot:
                current.add(self.slots.pop()[1])
        self._slot = slot
        self._current = current
        self.slots.append((slot, self._current))
        while self.slots[0][0] <= slot - self._limit:
            self.slots.popleft()

    def attempt_failed(self, code: Code) -> None:
        """Counts one failed attempt, whatever became of the call."""
        self.upstream_errors[code] = self.upstream_errors.get(code, 0) + 1


@dataclass(frozen=True, slots=True)
class Point:
    """Calls of one step of time."""

    start: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Answer:
    """Traffic of one version over the time asked for."""

    version: str
    total: Counts
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic of a route, by version, and the time that it covers."""

    start: float
    end: float
    series: tuple[Answer, ...] = field(default=())


class TrafficLog:
    """All series. `resolution` and `window` in seconds.

    Series are made for models with a route only, so that callers cannot make it grow by inventing names.
    """

    def __init__(self, *, resolution: float = 1.0, window: float = 1800.0, started: float = 0.0) -> None:
        self.resolution = resolution
        self.window = window
        self._started = started
        self._series: dict[tuple[str, str], Series] = {}

    def series(self, key: str, version: str) -> Series:
        """The series of one version of `project/model`."""
        found = self._series.get((key, version))
        if found is None:
            found = Series(self.resolution, max(1, int(self.window / self.resolution)))
            self._series[key, version] = found
        return found

    def __iter__(self) -> Iterator[tuple[str, str, Series]]:
        """All series as (model, version, series)."""
        for (key, version), series in list(self._series.items()):
            yield key, version, series

    def query(
        self,
        key: str,
        now: float,
        *,
        start: float | None,
        end: float | None,
        step: float | None,
        version: str = "",
    ) -> Traffic:
        """Traffic of one model between two times, which are widened to whole slots."""
        resolution = self.resolution
        newest = int(now / resolution) + 1
        begun = [series.slots[0][0] for series in self._series.values() if series.slots]
        # What was counted is older than the start if the clock has been set back since.
        begun.append(int(self._started / resolution))
        oldest = max(newest - int(self.window / resolution), min(begun))
        last = min(newest, -int(-end // resolution)) if end is not None else newest
        first = max(oldest, int(start / resolution)) if start is not None else oldest
        last = max(first, last)
        stride = max(1, -int(-step // resolution)) if step else 0
        found = [
            _answer(name, series, first, last, stride, resolution)
            for (model, name), series in sorted(self._series.items())
            if model == key and version in ("", name)
        ]
        return Traffic(
            first * resolution, last * resolution, tuple(answer for answer in found if answer.total.requests)
        )


def _answer(version: str, series: Series, first: int, last: int, stride: int, resolution: float) -> Answer:
    total = Counts()
    points: dict[int, Counts] = {}
    for slot, counts in series.slots:
        if not first <= slot < last:
            continue
        total.add(counts)
        if stride:
            points.setdefault(first + (slot - first) // stride * stride, Counts()).add(counts)
    return Answer(
        version, total, tuple(Point(slot * resolution, counts) for slot, counts in sorted(points.items()))
    )
