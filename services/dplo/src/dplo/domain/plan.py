"""`plan(rollout, observed) -> actions`: what to do next, from what is stored and what is seen. Pure.

Level-triggered: nothing is remembered between calls but the rollout, so a plan made after a crash is the plan
made without one. What holds of every plan:

- traffic is only ever routed to versions that have a ready replica at that moment;
- what carries traffic is kept running until the traffic is observed to be gone from it;
- where the gateway cannot be asked, nothing is stopped and nothing is routed;
- planning on the achieved state gives no actions and no change.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dplo.domain.actions import Action, DeleteRoute, FetchPackage, PlaceReplica, PutRoute, StopReplica
from dplo.domain.gate import Judgement, Verdict, judge
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Observed, Replica, ReplicaState
from dplo.domain.rollout import Phase, Rollout, RolloutState
from dplo.domain.spec import FailureAction, VersionSpec

GATE_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rollout cannot go on."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and the rollout as it is after this look at the world.

    `rollback` asks for a new revision that goes back to `rollout.fallback`. `check_at` is when time alone
    will change the plan. `forget` says that a deployment that is being deleted has nothing left.
    """

    actions: tuple[Action, ...]
    rollout: Rollout
    rollback: Failure | None = None
    check_at: float | None = None
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Replicas that are alike: how many of them are wanted, and whether the target wants them."""

    spec: VersionSpec
    count: int
    target: bool

    @property
    def key(self) -> tuple[str, str]:
        """What its replicas are told by."""
        return (self.spec.version, self.spec.fingerprint)


def replica_id(deployment: DeploymentName, version: VersionSpec, ordinal: int) -> str:
    """The id of a replica: the same for the same place in the plan, so that placing twice is placing once."""
    slug = re.sub(r"[^a-z0-9]+", "-", version.version.lower()).strip("-")[:16]
    return f"{deployment.deployment[:24]}-{slug}-{version.fingerprint}-{ordinal}"


def wanted_groups(rollout: Rollout) -> tuple[Group, ...]:
    """The replicas that must run: the target's, and until the traffic has moved what carried it before."""
    groups = {(v.version, v.fingerprint): Group(v, v.replicas, True) for v in rollout.target.versions}
    if rollout.phase.order < Phase.DRAIN.order:
        for version in rollout.base:
            key = (version.version, version.fingerprint)
            known = groups.get(key)
            count = max(known.count, version.replicas) if known else version.replicas
            groups[key] = Group(version, count, known is not None)
    return tuple(groups.values())


def plan(deployment: DeploymentName, rollout: Rollout, seen: Observed) -> Plan:
    """What to do for a deployment that is to be in service."""
    groups = wanted_groups(rollout)
    placements = _placements(deployment, rollout, groups, seen)
    actions: list[Action] = [*_fetches(rollout, groups, seen)]
    actions += [p for p in placements if p.version.package.digest in seen.cached]
    route = _route(deployment, rollout, seen)
    if route is not None:
        actions.append(route)
    actions += _stops(rollout, groups, seen)
    if not rollout.active:
        return Plan(tuple(actions), rollout)
    following, failure, check_at = _advance(deployment, rollout, groups, seen)
    if failure is not None:
        return fail(rollout, failure, seen.now)
    return Plan(tuple(actions), following, check_at=check_at)


def plan_removal(deployment: DeploymentName, rollout: Rollout, seen: Observed) -> Plan:
    """What to do for a deployment that is to be gone: first the route, so that no caller meets a dying
    replica.
    """
    if not seen.gateway_known or seen.replicas is None:
        return Plan((), rollout)
    if seen.route is not None and seen.route.owner in ("", str(deployment)):
        return Plan((DeleteRoute(seen.route.etag),), rollout)
    timeouts = {v.fingerprint: v.drain_timeout for v in (*rollout.base, *rollout.target.versions)}
    stops = tuple(
        StopReplica(r.id, r.version, timeouts.get(r.fingerprint, 30.0))
        for r in seen.replicas
        if r.state is not ReplicaState.DRAINING
    )
    return Plan(stops, rollout, forget=not seen.replicas)


def fail(rollout: Rollout, failure: Failure, now: float) -> Plan:
    """What a failure leads to: a pause, a way back, or the end. A rollout that goes back never gives up."""
    if rollout.persistent:
        return Plan((), replace(rollout, reason=failure.reason, message=failure.message))
    if rollout.target.strategy.on_failure is FailureAction.PAUSE:
        paused = replace(rollout, state=RolloutState.PAUSED, reason=failure.reason, message=failure.message)
        return Plan((), paused)
    if rollout.fallback is not None:
        return Plan((), rollout, rollback=failure)
    ended = replace(
        rollout, state=RolloutState.FAILED, reason=failure.reason, message=failure.message, ended_at=now
    )
    return Plan((), ended)


def _fetches(rollout: Rollout, groups: Iterable[Group], seen: Observed) -> list[FetchPackage]:
    """Packages of replicas that are missing, and those of the target while the rollout resolves them."""
    missing: dict[str, FetchPackage] = {}
    for group in groups:
        package = group.spec.package
        needed = (group.target and rollout.phase is Phase.RESOLVE and rollout.active) or _lacking(group, seen)
        if needed and package.digest not in seen.cached:
            missing.setdefault(package.digest, FetchPackage(package))
    return list(missing.values())


def _lacking(group: Group, seen: Observed) -> bool:
    return seen.replicas is not None and len(_live(group, seen)) < group.count


def _live(group: Group, seen: Observed) -> list[Replica]:
    return [r for r in seen.replicas or () if r.group == group.key and r.state is not ReplicaState.DRAINING]


def _placements(
    deployment: DeploymentName, rollout: Rollout, groups: Iterable[Group], seen: Observed
) -> list[PlaceReplica]:
    if seen.replicas is None:
        return []
    placements = []
    for group in groups:
        only_target = group.target and group.key not in {(v.version, v.fingerprint) for v in rollout.base}
        if only_target and rollout.phase is Phase.RESOLVE and rollout.active:
            continue
        taken = {r.ordinal for r in seen.replicas if r.group == group.key}
        free = (n for n in range(group.count + len(taken)) if n not in taken)
        for _ in range(group.count - len(_live(group, seen))):
            ordinal = next(free)
            placements.append(PlaceReplica(replica_id(deployment, group.spec, ordinal), ordinal, group.spec))
    return placements


def _route(deployment: DeploymentName, rollout: Rollout, seen: Observed) -> PutRoute | None:
    """The change of the route that is due and safe, if any."""
    wanted = rollout.shares
    if not seen.gateway_known or not wanted or rollout.state is RolloutState.FAILED:
        return None
    if route_in_effect(deployment, rollout, seen) or wanted.versions - seen.ready_versions():
        return None
    if seen.route is not None and seen.route.owner not in ("", str(deployment)):
        return None
    etag = seen.route.etag if seen.route else ""
    return PutRoute(wanted, _policy(rollout, seen), etag, rollout.percent)


def route_in_effect(deployment: DeploymentName, rollout: Rollout, seen: Observed) -> bool:
    """Whether the gateway is observed to route as the rollout wants it now."""
    return (
        seen.gateway_known
        and seen.route is not None
        and seen.route.owner == str(deployment)
        and seen.route.shares.parts == rollout.shares.parts
        and seen.route.policy == _policy(rollout, seen)
    )


def _policy(rollout: Rollout, seen: Observed) -> bytes:
    """The declared policy comes with the first shift; before that the present one stays."""
    if rollout.step < 0 and rollout.active and seen.route is not None:
        return seen.route.policy
    return rollout.target.policy


def _stops(rollout: Rollout, groups: Iterable[Group], seen: Observed) -> list[StopReplica]:
    """Replicas that nobody needs: their version carries no traffic, or enough others of it are ready."""
    if not seen.gateway_known or seen.replicas is None or rollout.state is RolloutState.FAILED:
        return []
    wanted = {group.key: group.count for group in groups}
    routed = seen.route.shares.versions if seen.route else frozenset[str]()
    ready = Counter(r.version for r in seen.replicas if r.ready and r.group in wanted)
    timeouts = {v.fingerprint: v.drain_timeout for v in (*rollout.base, *rollout.target.versions)}
    stops: list[StopReplica] = []
    for key in sorted({r.group for r in seen.replicas}):
        live = [r for r in seen.replicas if r.group == key and r.state is not ReplicaState.DRAINING]
        surplus = len(live) - wanted.get(key, 0)
        if surplus <= 0 or (key not in wanted and key[0] in routed and not ready[key[0]]):
            continue
        spared_last = sorted(live, key=lambda r: (r.ready, -r.ordinal))
        stops += [StopReplica(r.id, r.version, timeouts.get(key[1], 30.0)) for r in spared_last[:surplus]]
    return stops


def _advance(
    deployment: DeploymentName, rollout: Rollout, groups: tuple[Group, ...], seen: Observed
) -> tuple[Rollout, Failure | None, float | None]:
    """One transition of the rollout at most, so that each phase is seen."""
    if rollout.state is RolloutState.PAUSED:
        return rollout, None, None
    target = [group for group in groups if group.target]
    if rollout.phase is Phase.RESOLVE:
        if all(group.spec.package.digest in seen.cached for group in target):
            return _enter(replace(rollout, placing_since=seen.now), Phase.PLACE, seen.now), None, None
        return rollout, None, None
    if rollout.phase.order <= Phase.SHIFT.order:
        failure = _replica_failure(rollout, target, seen)
        if failure is not None and not rollout.persistent:
            return rollout, failure, None
    if rollout.phase is Phase.PLACE:
        if seen.replicas is not None and all(len(_live(g, seen)) >= g.spec.replicas for g in target):
            return _enter(rollout, Phase.WAIT, seen.now), None, None
        return rollout, None, _ready_deadline(rollout)
    if rollout.phase is Phase.WAIT:
        if all(_ready_count(g, seen) >= g.spec.replicas for g in target):
            return _enter(replace(rollout, step=0), Phase.SHIFT, seen.now), None, None
        return rollout, None, _ready_deadline(rollout)
    if rollout.phase is Phase.SHIFT:
        return _advance_step(deployment, rollout, seen)
    return _finish(rollout, seen), None, None


def _ready_count(group: Group, seen: Observed) -> int:
    return sum(r.ready for r in seen.replicas or () if r.group == group.key)


def _ready_deadline(rollout: Rollout) -> float | None:
    if rollout.placing_since is None or rollout.persistent:
        return None
    return rollout.placing_since + rollout.target.strategy.ready_timeout


def _enter(rollout: Rollout, phase: Phase, now: float) -> Rollout:
    return replace(rollout, phase=phase, phase_started_at=now, reason="", message="")


def _replica_failure(rollout: Rollout, target: list[Group], seen: Observed) -> Failure | None:
    """A new replica that crashes again and again, or too long a wait for all of them."""
    old = {(v.version, v.fingerprint) for v in rollout.base}
    for group in target:
        for replica in _live(group, seen):
            if replica.state is ReplicaState.CRASH_LOOPING and group.key not in old:
                return Failure(
                    "REPLICA_CRASH_LOOPING",
                    f"replica {replica.id} of version {replica.version} crashes again and again: "
                    f"{replica.message}",
                )
    deadline = _ready_deadline(rollout)
    if rollout.phase is Phase.SHIFT or deadline is None or seen.now < deadline:
        return None
    lacking = [
        f"version {g.spec.version}: {_ready_count(g, seen)} of {g.spec.replicas} ready"
        + "".join(f"; {r.id} is {r.state.value}{_why(r)}" for r in _live(g, seen) if not r.ready)
        for g in target
        if _ready_count(g, seen) < g.spec.replicas
    ]
    if not lacking:
        return None
    limit = rollout.target.strategy.ready_timeout
    return Failure("READY_TIMEOUT", f"not ready within {limit:g} s: " + ". ".join(lacking))


def _why(replica: Replica) -> str:
    if replica.state is ReplicaState.HEALTHY and not replica.registered:
        return " but not registered at the gateway"
    return f" ({replica.message})" if replica.message else ""


def _advance_step(
    deployment: DeploymentName, rollout: Rollout, seen: Observed
) -> tuple[Rollout, Failure | None, float | None]:
    """Whether the step in effect is over."""
    if not route_in_effect(deployment, rollout, seen):
        if seen.route is not None and seen.route.owner not in ("", str(deployment)):
            return rollout, Failure("ROUTE_OWNED", _owned(seen.route.owner)), None
        return rollout, None, None
    if rollout.step_started_at is None:
        return replace(rollout, step_started_at=seen.now), None, None
    judgement = _judgement(rollout, seen)
    if judgement is not None and judgement.verdict is Verdict.FAILED:
        return rollout, Failure("GATE_FAILED", f"at {rollout.percent} %: {judgement.message}"), None
    step = rollout.steps[rollout.step]
    given = rollout.unconditional or rollout.promoted >= rollout.step
    if step.manual_promotion and not given:
        message = f"waits at {rollout.percent} % for PromoteDeployment"
        waiting = replace(
            rollout, state=RolloutState.AWAITING_PROMOTION, reason="AWAITING_PROMOTION", message=message
        )
        return waiting, None, seen.now + GATE_INTERVAL if judgement else None
    over_at = rollout.step_started_at + step.min_duration
    if seen.now < over_at and not given:
        message = f"stays at {rollout.percent} % for {step.min_duration:g} s"
        return replace(rollout, reason="STEP_LASTS", message=message), None, over_at
    if judgement is not None and judgement.verdict is Verdict.WAITING and not given:
        waiting = replace(
            rollout, reason="GATE_WAITING", message=f"at {rollout.percent} %: {judgement.message}"
        )
        return waiting, None, seen.now + GATE_INTERVAL
    if rollout.at_last_step:
        return _enter(rollout, Phase.DRAIN, seen.now), None, None
    following = replace(rollout, step=rollout.step + 1, step_started_at=None, reason="", message="")
    return following, None, None


def _owned(owner: str) -> str:
    return f"the route belongs to {owner}; delete that deployment first, or give this one another model"


def _judgement(rollout: Rollout, seen: Observed) -> Judgement | None:
    """What the gate says; None where there is none to ask."""
    gate = rollout.target.strategy.gate
    if gate is None or not rollout.gated:
        return None
    if seen.samples is None:
        return Judgement(Verdict.WAITING, seen.samples_error or "the gateway has not been asked yet")
    return judge(gate, seen.samples, rollout.growing())


def needs_samples(rollout: Rollout) -> bool:
    """Whether the plan will ask what was measured at the gateway."""
    watching = rollout.state in {RolloutState.RUNNING, RolloutState.AWAITING_PROMOTION}
    return watching and rollout.phase is Phase.SHIFT and rollout.gated and rollout.step_started_at is not None


def _finish(rollout: Rollout, seen: Observed) -> Rollout:
    """Complete when nothing superfluous is left."""
    wanted = {(v.version, v.fingerprint): v.replicas for v in rollout.target.versions}
    if seen.replicas is None or not seen.gateway_known:
        return rollout
    running = Counter(r.group for r in seen.replicas)
    if any(count > wanted.get(key, 0) for key, count in running.items()):
        return rollout
    return replace(
        rollout,
        state=RolloutState.COMPLETE,
        phase=Phase.DONE,
        phase_started_at=seen.now,
        ended_at=seen.now,
        base=(),
        reason="",
        message="",
    )
