"""Interleaved rounds and their medians, printed as a table or as JSON."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.load import Load
from bench.process import Server

Run = Callable[[int], Load]


@dataclass(frozen=True)
class Target:
    """Something under load: `run(requests)` sends that many to it, and `server` is whose CPU is counted."""

    name: str
    server: Server
    run: Run


@dataclass(frozen=True)
class Row:
    """Medians over the rounds of one target; `ratio` is its CPU per request over the baseline's."""

    name: str
    concurrency: int
    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    ratio: float


def measure(targets: Sequence[Target], *, concurrency: int, rounds: int, seconds: float) -> list[Row]:
    """Visits every target once a round, so that drift hits all alike; the first is the baseline."""
    counts = {t.name: _calibrate(t, seconds) for t in targets}
    cpu: dict[str, list[float]] = {t.name: [] for t in targets}
    loads: dict[str, list[Load]] = {t.name: [] for t in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            before = target.server.cpu_seconds()
            load = target.run(counts[target.name])
            cpu[target.name].append((target.server.cpu_seconds() - before) / load.requests * 1e6)
            loads[target.name].append(load)
    return [_row(t.name, concurrency, cpu, loads, targets[0].name) for t in targets]


def _calibrate(target: Target, seconds: float) -> int:
    target.run(500)
    return max(500, int(target.run(1000).per_second * seconds) // 32 * 32)


def _row(
    name: str,
    concurrency: int,
    cpu: Mapping[str, list[float]],
    loads: Mapping[str, list[Load]],
    baseline: str,
) -> Row:
    mine = loads[name]
    return Row(
        name=name,
        concurrency=concurrency,
        cpu_us=statistics.median(cpu[name]),
        per_second=statistics.median(load.per_second for load in mine),
        p50_us=statistics.median(load.p50_us for load in mine),
        p99_us=statistics.median(load.p99_us for load in mine),
        # Round by round, so that what slowed a round slows both sides of its ratio.
        ratio=statistics.median(a / b for a, b in zip(cpu[name], cpu[baseline], strict=True)),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| target | concurrency | CPU µs/request | × baseline | requests/s | p50 µs | p99 µs |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.concurrency} | {r.cpu_us:.0f} | {r.ratio:.2f} | {r.per_second:,.0f} "
        f"| {r.p50_us:.0f} | {r.p99_us:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)
