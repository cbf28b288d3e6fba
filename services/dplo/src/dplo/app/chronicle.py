"""What of a reconciliation goes into history, events and spans. Pure: from the state before and after."""

from dataclasses import replace

from dplo.app.events import Event, EventType
from dplo.app.execute import Outcome
from dplo.app.ports import SpanFacts
from dplo.domain.actions import PutRoute
from dplo.domain.conditions import changed
from dplo.domain.deployment import Deployment, Revision, RevisionStep
from dplo.domain.observed import Replica
from dplo.domain.rollout import Phase, Rollout, RolloutState

PHASE_TEXT = {
    Phase.RESOLVE: "fetching and verifying packages",
    Phase.PLACE: "placing replicas",
    Phase.WAIT: "waiting until every replica is ready",
    Phase.SHIFT: "shifting traffic",
    Phase.DRAIN: "draining what is no longer needed",
    Phase.DONE: "done",
}


def tell_events(before: Deployment, after: Deployment, outcomes: list[Outcome]) -> tuple[Event, ...]:
    """What happened between two states of a deployment."""
    now = after.status.observed_at or after.updated_at
    rollout = after.rollout
    revision, phase = rollout.revision, rollout.phase

    def event(kind: EventType, message: str, subject: str = "") -> Event:
        return Event(kind, message, now, revision, phase, subject)

    events: list[Event] = []
    if phase is not before.rollout.phase:
        events.append(event(EventType.PHASE_CHANGED, PHASE_TEXT[phase]))
    if _in_effect(before.rollout, rollout) or _repaired(rollout, outcomes):
        text = f"the gateway routes {rollout.shares.describe()}"
        shifted = event(EventType.TRAFFIC_SHIFTED, text)
        events.append(replace(shifted, shares=rollout.shares))
    events += [
        event(EventType.REPLICA_CHANGED, text, replica)
        for replica, text in replica_changes(before.status.replicas, after.status.replicas)
    ]
    events += [
        event(EventType.CONDITION_CHANGED, f"{c.type} is {c.status.value}: {c.message}", c.type)
        for c in changed(before.status.conditions, after.status.conditions)
    ]
    attempt = after.status.attempt
    if attempt is not None and attempt != before.status.attempt:
        text = f"{attempt.message} (attempt {attempt.count})"
        events.append(event(EventType.ATTEMPT_FAILED, text, attempt.reason))
    if (rollout.state, rollout.reason) != (before.rollout.state, before.rollout.reason):
        text = f"revision {revision} is {rollout.state.value}"
        events.append(
            event(EventType.ROLLOUT_CHANGED, f"{text}: {rollout.message}" if rollout.message else text)
        )
    return tuple(events)


def _in_effect(before: Rollout, after: Rollout) -> bool:
    """Whether the traffic of a step was just seen to be in effect."""
    return after.step_started_at is not None and (before.step, before.step_started_at) != (
        after.step,
        after.step_started_at,
    )


def _repaired(rollout: Rollout, outcomes: list[Outcome]) -> bool:
    """Whether traffic was put back where it belongs, outside of a shift."""
    shifting = rollout.active and rollout.phase is Phase.SHIFT
    return not shifting and any(isinstance(o.action, PutRoute) and not o.failure for o in outcomes)


def replica_changes(before: tuple[Replica, ...], after: tuple[Replica, ...]) -> list[tuple[str, str]]:
    """Which replicas came, went, or changed what they are doing."""
    old = {replica.id: replica for replica in before}
    new = {replica.id: replica for replica in after}
    changes = []
    for replica in after:
        known = old.get(replica.id)
        if known is None or (known.state, known.ready) != (replica.state, replica.ready):
            state = "ready" if replica.ready else replica.state.value
            text = f"{replica.id} (version {replica.version}) is {state}"
            changes.append((replica.id, f"{text}: {replica.message}" if replica.message else text))
    changes += [(r.id, f"{r.id} (version {r.version}) is gone") for r in before if r.id not in new]
    return changes


def continue_revision(revision: Revision, before: Rollout, after: Rollout, now: float) -> Revision:
    """The history entry with what was done since."""
    result = revision
    if after.phase is not before.phase and after.phase is not Phase.DONE:
        step = RevisionStep(after.phase, PHASE_TEXT[after.phase], now, span_id=after.trace.phase_span_id)
        result = result.with_step(step)
    if _in_effect(before, after):
        text = f"the gateway routes {after.shares.describe()}"
        step = RevisionStep(Phase.SHIFT, text, now, shares=after.shares, span_id=after.trace.phase_span_id)
        result = result.with_step(step)
    if after.state.ended and not before.state.ended:
        return result.ended(after.state, after.message, now)
    return replace(result, state=after.state, state_message=after.message)


def phase_span(deployment: Deployment, rollout: Rollout, now: float, error: str = "") -> SpanFacts:
    """The span of the phase that ends."""
    attributes: list[tuple[str, str | int]] = [
        ("penstock.deployment", str(deployment.name)),
        ("penstock.revision", rollout.revision),
    ]
    if rollout.phase is Phase.SHIFT:
        attributes += [("penstock.traffic", rollout.shares.describe()), ("penstock.step", rollout.step)]
    return SpanFacts(rollout.phase.value, rollout.phase_started_at, now, tuple(attributes), error)


def rollout_span(deployment: Deployment, rollout: Rollout, now: float) -> SpanFacts:
    """The root span of a rollout that ends."""
    attributes: tuple[tuple[str, str | int], ...] = (
        ("penstock.deployment", str(deployment.name)),
        ("penstock.revision", rollout.revision),
        ("penstock.rollout.state", rollout.state.value),
    )
    failed = rollout.state in {RolloutState.FAILED, RolloutState.ROLLED_BACK}
    return SpanFacts("rollout", rollout.started_at, now, attributes, rollout.message if failed else "")
