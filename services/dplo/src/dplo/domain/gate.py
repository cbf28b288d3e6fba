"""The gate of a rollout: whether what was measured of the new versions allows the next step."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dplo.domain.spec import Gate


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """What was measured of one version. `percentiles` maps a percentile (99.0) to seconds."""

    requests: int
    errors: int
    percentiles: tuple[tuple[float, float], ...] = ()

    @property
    def error_rate(self) -> float:
        """Failed requests, from 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0


class Verdict(enum.StrEnum):
    """What the gate says."""

    PASSED = "passed"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why."""

    verdict: Verdict
    message: str


def judge(gate: Gate, samples: Mapping[str, TrafficSample], versions: Iterable[str]) -> Judgement:
    """Judges the versions whose share grows. Too few requests: wait, whatever they look like."""
    waiting: list[str] = []
    for version in sorted(versions):
        sample = samples.get(version, TrafficSample(0, 0))
        if sample.requests < gate.min_requests:
            waiting.append(
                f"version {version} has answered {sample.requests} of {gate.min_requests} requests"
            )
            continue
        fault = _fault(gate, sample)
        if fault:
            return Judgement(Verdict.FAILED, f"version {version}: {fault}")
    if waiting:
        return Judgement(Verdict.WAITING, "; ".join(waiting))
    return Judgement(Verdict.PASSED, "every version is within the limits")


def _fault(gate: Gate, sample: TrafficSample) -> str:
    if gate.max_error_rate is not None and sample.error_rate > gate.max_error_rate:
        return (
            f"{sample.errors} of {sample.requests} requests failed ({sample.error_rate:.2%}), "
            f"at most {gate.max_error_rate:.2%} may"
        )
    if gate.latency_percentile is not None and gate.max_latency is not None:
        latency = dict(sample.percentiles).get(gate.latency_percentile)
        if latency is not None and latency > gate.max_latency:
            return (
                f"the {gate.latency_percentile:g}th percentile of the latency is {latency * 1000:.1f} ms, "
                f"at most {gate.max_latency * 1000:.1f} ms is allowed"
            )
    return ""
