"""What applying a declaration would do, by running the plan against a world where all goes well."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dplo.domain.actions import Action, DeleteRoute, FetchPackage, PlaceReplica, PutRoute, StopReplica
from dplo.domain.deployment import Cause, Deployment, begin
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Observed, Replica, ReplicaState, RouteView
from dplo.domain.plan import plan
from dplo.domain.rollout import Phase, Rollout, RolloutState, TraceReference, promote
from dplo.domain.spec import Spec
from dplo.domain.traffic import NOTHING, Shares

_MOST_LOOKS = 400


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One thing that would be done."""

    phase: Phase
    kind: str
    subject: str
    description: str
    shares: Shares = NOTHING


def preview(name: DeploymentName, before: Deployment | None, spec: Spec) -> tuple[PlannedAction, ...]:
    """The actions in order, with the waits between steps of traffic."""
    started = begin(before, name, spec, uid="", now=0.0, cause=Cause.APPLY, trace=TraceReference())
    rollout = _without_gate(started.rollout)
    seen = _world_of(name, before)
    told: list[PlannedAction] = []
    for _ in range(_MOST_LOOKS):
        made = plan(name, rollout, seen)
        if not made.actions and made.rollout == rollout:
            if rollout.state is not RolloutState.AWAITING_PROMOTION:
                break
            made = replace(made, rollout=promote(rollout, to_completion=False))
        told += [_tell(action) for action in made.actions]
        told += _tell_wait(name, rollout, made.rollout, spec)
        seen = apply_actions(name, seen, made.actions)
        seen = replace(seen, now=made.check_at if made.check_at is not None else seen.now + 1)
        rollout = made.rollout
    return tuple(told)


def apply_actions(name: DeploymentName, seen: Observed, actions: Iterable[Action]) -> Observed:
    """The world after actions that all go well at once."""
    replicas = [r for r in seen.replicas or () if r.state is not ReplicaState.DRAINING]
    cached, route = set(seen.cached), seen.route
    for action in actions:
        match action:
            case FetchPackage(package):
                cached.add(package.digest)
            case PlaceReplica(replica, ordinal, version):
                replicas.append(
                    Replica(
                        replica,
                        version.version,
                        version.fingerprint,
                        ReplicaState.HEALTHY,
                        ordinal,
                        registered=True,
                    )
                )
            case PutRoute(shares, policy, etag, _):
                route = RouteView(shares.weights(), etag + "+", policy, str(name))
            case StopReplica(replica):
                replicas = [r for r in replicas if r.id != replica]
            case DeleteRoute():
                route = None
    return replace(seen, replicas=tuple(replicas), cached=frozenset(cached), route=route)


def _without_gate(rollout: Rollout) -> Rollout:
    """A gate is told of, not waited for."""
    strategy = replace(rollout.target.strategy, gate=None)
    return replace(rollout, target=replace(rollout.target, strategy=strategy), fallback=None)


def _world_of(name: DeploymentName, before: Deployment | None) -> Observed:
    if before is None:
        return Observed(now=0.0, replicas=())
    digests = {v.package.digest for v in (*before.rollout.base, *before.spec.versions)}
    live = [
        replace(r, state=ReplicaState.HEALTHY, registered=True)
        for r in before.status.replicas
        if r.state is not ReplicaState.DRAINING
    ]
    shares = before.rollout.shares
    route = RouteView(shares.weights(), "", before.spec.policy, str(name)) if before.status.shares else None
    return Observed(now=0.0, replicas=tuple(live), cached=frozenset(digests), route=route)


def _tell(action: Action) -> PlannedAction:
    shares = action.shares if isinstance(action, PutRoute) else Shares()
    return PlannedAction(action.phase, action.kind, action.subject, action.describe(), shares)


def _tell_wait(name: DeploymentName, before: Rollout, after: Rollout, spec: Spec) -> list[PlannedAction]:
    """What is waited for between two looks, as a person wants to know it."""
    if after.phase is Phase.WAIT and before.phase is not Phase.WAIT:
        limit = spec.strategy.ready_timeout
        text = f"wait until every replica is ready and registered, at most {limit:g} s"
        return [PlannedAction(Phase.WAIT, "WAIT_READY", str(name), text)]
    began = after.step_started_at is not None and (before.step, before.step_started_at) != (
        after.step,
        after.step_started_at,
    )
    if not began or not after.stepped or after.step >= len(spec.strategy.steps):
        return []
    step = after.steps[after.step]
    waits = []
    if step.min_duration:
        waits.append(f"stay at {step.percent} % for {step.min_duration:g} s")
    if spec.strategy.gate is not None:
        waits.append("ask the gate")
    if step.manual_promotion:
        waits.append(f"wait at {step.percent} % for PromoteDeployment")
    return [PlannedAction(Phase.SHIFT, "WAIT_STEP", str(name), text) for text in waits]
