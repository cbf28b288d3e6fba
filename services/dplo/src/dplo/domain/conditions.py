"""Conditions of a deployment: one pure function from what is stored and seen to what a person is told."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dplo.domain.observed import Observed, ReplicaState
from dplo.domain.rollout import Phase, Rollout, RolloutState


class Truth(enum.StrEnum):
    """Whether a condition holds."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One observed aspect. `since` in seconds since the epoch."""

    type: str
    status: Truth
    reason: str
    message: str
    since: float
    generation: int


def observe_conditions(
    rollout: Rollout, seen: Observed, generation: int, before: Iterable[Condition]
) -> tuple[Condition, ...]:
    """The conditions now; the time of those that have not changed stays."""
    known = {condition.type: condition for condition in before}
    found = (
        ("PackagesResolved", *_packages(rollout, seen)),
        ("ReplicasReady", *_replicas(rollout, seen)),
        ("GatewayReachable", *_gateway(seen)),
        ("TrafficShifted", *_traffic(rollout, seen)),
        ("RolloutComplete", *_rollout(rollout)),
        ("Ready", *_ready(rollout, seen)),
    )
    conditions = []
    for kind, status, reason, message in found:
        old = known.get(kind)
        since = old.since if old is not None and old.status is status else seen.now
        conditions.append(Condition(kind, status, reason, message, since, generation))
    return tuple(conditions)


def changed(before: Iterable[Condition], after: Iterable[Condition]) -> tuple[Condition, ...]:
    """Conditions whose status or reason is another than before."""
    known = {c.type: (c.status, c.reason) for c in before}
    return tuple(c for c in after if known.get(c.type) != (c.status, c.reason))


def without_times(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """For comparison."""
    return tuple(replace(c, since=0.0) for c in conditions)


_Finding = tuple[Truth, str, str]


def _packages(rollout: Rollout, seen: Observed) -> _Finding:
    if rollout.phase.order > Phase.RESOLVE.order:
        return Truth.TRUE, "VERIFIED", "every package is fetched and verified"
    missing = [v.package.name for v in rollout.target.versions if v.package.digest not in seen.cached]
    if not missing:
        return Truth.TRUE, "VERIFIED", "every package is fetched and verified"
    if rollout.state is RolloutState.FAILED:
        return Truth.FALSE, rollout.reason, rollout.message
    return Truth.FALSE, "FETCHING", f"not fetched yet: {', '.join(missing)}"


def _replicas(rollout: Rollout, seen: Observed) -> _Finding:
    if seen.replicas is None:
        return Truth.UNKNOWN, "CLUSTER_UNREACHABLE", seen.cluster_error
    lacking, reasons = [], []
    for version in rollout.target.versions:
        group = [r for r in seen.replicas if r.group == (version.version, version.fingerprint)]
        ready = sum(r.ready for r in group)
        if ready < version.replicas:
            text = f"version {version.version}: {ready} of {version.replicas} ready"
            looping = [r for r in group if r.state is ReplicaState.CRASH_LOOPING]
            if looping:
                reasons.append("REPLICA_CRASH_LOOPING")
                text += f"; {looping[0].id} ends again and again: {looping[0].message}"
            lacking.append(text)
    if not lacking:
        return Truth.TRUE, "READY", "every replica is healthy and registered"
    return Truth.FALSE, reasons[0] if reasons else "REPLICAS_NOT_READY", ". ".join(lacking)


def _gateway(seen: Observed) -> _Finding:
    if seen.gateway_known:
        return Truth.TRUE, "REACHABLE", "the gateway answers"
    return (
        Truth.FALSE,
        "GATEWAY_UNREACHABLE",
        f"the gateway does not answer and is tried again: {seen.gateway_error}",
    )


def _traffic(rollout: Rollout, seen: Observed) -> _Finding:
    if not seen.gateway_known:
        return Truth.UNKNOWN, "GATEWAY_UNREACHABLE", "the gateway does not answer"
    actual = seen.route.shares if seen.route else None
    if actual is not None and actual.same_split(rollout.target.traffic):
        return Truth.TRUE, "AS_DECLARED", f"the gateway routes {actual.describe()}"
    if actual is None:
        return Truth.FALSE, "NO_ROUTE", "the gateway has no route for the model yet"
    unready = rollout.shares.versions - seen.ready_versions()
    if unready and not actual.same_split(rollout.shares):
        names = ", ".join(sorted(unready))
        return Truth.FALSE, "VERSION_NOT_READY", f"traffic waits until version {names} has a ready replica"
    return (
        Truth.FALSE,
        "SHIFTING",
        f"the gateway routes {actual.describe()}, declared is {rollout.target.traffic.describe()}",
    )


def _rollout(rollout: Rollout) -> _Finding:
    if rollout.state is RolloutState.COMPLETE:
        return Truth.TRUE, "COMPLETE", f"revision {rollout.revision} is complete"
    message = rollout.message or f"revision {rollout.revision} is in phase {rollout.phase.value}"
    return Truth.FALSE, rollout.reason or rollout.state.value.upper(), message


def _ready(rollout: Rollout, seen: Observed) -> _Finding:
    """Whether callers are served, whatever the rollout does."""
    if not seen.gateway_known:
        return Truth.UNKNOWN, "GATEWAY_UNREACHABLE", "the gateway does not answer"
    routed = seen.route.shares.versions if seen.route else frozenset[str]()
    if not routed:
        return Truth.FALSE, rollout.reason or "NO_ROUTE", rollout.message or "no traffic is routed yet"
    missing = routed - seen.ready_versions()
    if missing:
        return Truth.FALSE, "VERSION_NOT_READY", f"no ready replica of version {', '.join(sorted(missing))}"
    return Truth.TRUE, "SERVING", "every version with traffic has a ready replica"
