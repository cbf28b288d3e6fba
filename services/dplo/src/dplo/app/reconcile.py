"""`reconcile_once`: look, plan, act, write down. Called again and again, and after a crash just once more."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from chassis import errors
from chassis.clock import Clock

from dplo.app.chronicle import continue_revision, phase_span, rollout_span, tell_events
from dplo.app.events import Event, EventType
from dplo.app.execute import Outcome, execute, worst
from dplo.app.notices import Notices
from dplo.app.observe import World, observe
from dplo.app.ports import Change, HistoryStore, RolloutTracer, StateStore
from dplo.app.retry import Backoff, PermanentError
from dplo.domain.conditions import observe_conditions, without_times
from dplo.domain.deployment import (
    Attempt,
    Cause,
    Deployment,
    Revision,
    RevisionStep,
    begin,
)
from dplo.domain.drift import find_drift
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Observed
from dplo.domain.plan import Failure, Plan, fail, plan, plan_removal
from dplo.domain.rollout import Phase, Rollout, RolloutState
from dplo.domain.traffic import Shares

SERVICE_AUTHOR = "penstock"
FatalKinds = frozenset({"FETCH_PACKAGE", "PLACE_REPLICA", "SHIFT_TRAFFIC"})
FaultPoint = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two looks at a deployment: while its rollout goes on, and while it only serves."""

    active: float = 0.2
    idle: float = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one reconciliation came to: when to look again, and whether the deployment is gone."""

    delay: float
    gone: bool = False


def no_fault(point: str) -> None:
    """Lets everything pass. Tests put a kill here."""


class Reconciler:
    """Brings deployments nearer to what is declared, one look at a time."""

    def __init__(
        self,
        *,
        store: StateStore,
        history: HistoryStore,
        world: World,
        clock: Clock,
        tracer: RolloutTracer,
        notices: Notices,
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        fault: FaultPoint = no_fault,
    ) -> None:
        self._store = store
        self._history = history
        self._world = world
        self._clock = clock
        self._tracer = tracer
        self._notices = notices
        self._pace = pace or Pace()
        self._backoff = backoff or Backoff()
        self._fault = fault

    async def reconcile_once(self, name: DeploymentName) -> Result:
        """One look. A lost race with another writer is no error: the next look starts from what is there
        then.
        """
        deployment = await self._store.read(name)
        if deployment is None:
            return Result(0.0, gone=True)
        with self._tracer.within(None):
            seen = await observe(self._world, deployment, self._clock)
        self._fault("observed")
        made = (plan_removal if deployment.deleting else plan)(name, deployment.rollout, seen)
        if made.forget:
            return await self._forget(deployment)
        made = _with_attempt(deployment, made)
        outcomes = await self._act(deployment, made, seen)
        self._fault("acted")
        made = _with_failures(deployment, made, outcomes, seen)
        try:
            written = await self._record(deployment, made, seen, outcomes)
        except errors.Aborted:
            return Result(0.0)
        self._fault("recorded")
        return Result(self._delay(deployment, written, made, outcomes, seen))

    async def _act(self, deployment: Deployment, made: Plan, seen: Observed) -> list[Outcome]:
        outcomes: list[Outcome] = []
        attempt = deployment.status.attempt
        waits = attempt.kind if attempt is not None and seen.now < attempt.next_at else ""
        reason = f"{deployment.name} revision {deployment.rollout.revision}"
        traced = deployment.rollout.trace if deployment.rollout.active else None
        with self._tracer.within(traced):
            for action in made.actions:
                if action.kind != waits:
                    outcomes.append(await execute(self._world, deployment, action, reason))
                    self._fault(action.kind.lower())
        return outcomes

    async def _record(
        self, before: Deployment, made: Plan, seen: Observed, outcomes: list[Outcome]
    ) -> Deployment:
        after = self._following(before, made, seen, outcomes)
        events = tell_events(before, after, outcomes)
        same = replace(before, status=replace(before.status, observed_at=after.status.observed_at))
        if after == same and made.rollback is None:
            return before
        revisions: list[Revision] = []
        revision = await self._history.revision(before.name, before.rollout.revision)
        if revision is not None:
            moved = continue_revision(revision, before.rollout, after.rollout, seen.now)
            revisions += [moved] if moved != revision else []
        if made.rollback is not None:
            after, revisions, more = await self._roll_back(after, revision, made.rollback, seen.now)
            events = (*events, *more)
        self._end_spans(before, after, made, seen.now)
        written = await self._store.write(Change(after, tuple(revisions), events))
        await self._notices.tell(before.name)
        return written

    def _following(
        self, before: Deployment, made: Plan, seen: Observed, outcomes: list[Outcome]
    ) -> Deployment:
        rollout = made.rollout
        if rollout.phase is not before.rollout.phase:
            rollout = replace(rollout, trace=self._tracer.next_phase(rollout.trace))
        complete = rollout.state is RolloutState.COMPLETE
        conditions = observe_conditions(rollout, seen, before.generation, before.status.conditions)
        if without_times(conditions) == without_times(before.status.conditions):
            conditions = before.status.conditions
        status = replace(
            before.status,
            replicas=before.status.replicas if seen.replicas is None else seen.replicas,
            shares=_routed(before, seen),
            conditions=conditions,
            drift=find_drift(rollout, seen),
            attempt=self._attempt(before, outcomes, seen.now),
            observed_at=seen.now,
        )
        moved = (rollout.state, rollout.phase, rollout.step) != (
            before.rollout.state,
            before.rollout.phase,
            before.rollout.step,
        )
        return replace(
            before,
            rollout=rollout,
            status=status,
            observed_generation=before.generation,
            last_complete=rollout.revision if complete else before.last_complete,
            updated_at=seen.now if moved else before.updated_at,
        )

    def _attempt(self, before: Deployment, outcomes: list[Outcome], now: float) -> Attempt | None:
        """The failure that is waited for, if any; an older one stays while its kind of action waits."""
        outcome = worst(outcomes)
        old = before.status.attempt
        if outcome is None or outcome.failure is None:
            return old if old is not None and now < old.next_at else None
        error = outcome.failure.error
        kind = outcome.action.kind
        count = old.count + 1 if old is not None and old.kind == kind else 1
        asked = None if isinstance(outcome.failure, PermanentError) else outcome.failure.delay
        delay = self._backoff.delay(count) if asked is None else asked
        message = f"could not {outcome.action.describe()}: {error.message}"
        return Attempt(kind, count, error.reason, message, now + delay)

    async def _roll_back(
        self, failed: Deployment, revision: Revision | None, failure: Failure, now: float
    ) -> tuple[Deployment, list[Revision], list[Event]]:
        """A new revision that goes back to the last one that was complete."""
        fallback = failed.rollout.fallback
        target = await self._history.revision(failed.name, fallback or 0)
        if target is None:
            raise errors.Internal(f"revision {fallback} of {failed.name} is lost", reason="REVISION_LOST")
        with self._tracer.within(failed.rollout.trace):
            trace = self._tracer.begin()
        cause = Cause.AUTOMATIC_ROLLBACK
        following = begin(failed, failed.name, target.spec, uid=failed.uid, now=now, cause=cause, trace=trace)
        message = f"revision {failed.rollout.revision} failed: {failure.message}"
        number = following.rollout.revision
        step = RevisionStep(
            Phase.RESOLVE, f"going back to revision {fallback}", now, span_id=trace.phase_span_id
        )
        made = Revision(
            number, following.generation, target.spec, cause, SERVICE_AUTHOR, message, now,
            trace_id=trace.trace_id, restored=fallback, steps=(step,),
        )  # fmt: skip
        ended = [] if revision is None else [revision.ended(RolloutState.ROLLED_BACK, failure.message, now)]
        text = f"revision {number} goes back to revision {fallback}: {message}"
        event = Event(EventType.REVISION_CREATED, text, now, number, Phase.RESOLVE)
        return following, [*ended, made], [event]

    def _end_spans(self, before: Deployment, after: Deployment, made: Plan, now: float) -> None:
        """Tells the spans that this look has ended."""
        old = before.rollout
        if not old.active:
            return
        rollout = made.rollout
        error = made.rollback.message if made.rollback else ""
        ended = replace(rollout, state=RolloutState.ROLLED_BACK, message=error) if error else rollout
        failed = error or (rollout.message if rollout.state is RolloutState.FAILED else "")
        if rollout.phase is not old.phase or failed:
            self._tracer.end_phase(old.trace, phase_span(before, _shown(old, rollout), now, failed))
        if ended.state.ended:
            self._tracer.end_rollout(old.trace, rollout_span(before, ended, now))

    async def _forget(self, deployment: Deployment) -> Result:
        try:
            await self._store.remove(deployment.name, deployment.row)
        except errors.Aborted:
            return Result(0.0)
        await self._notices.tell(deployment.name)
        return Result(0.0, gone=True)

    def _delay(
        self, before: Deployment, after: Deployment, made: Plan, outcomes: list[Outcome], seen: Observed
    ) -> float:
        """When to look again: at once after progress, else as the pace, a backoff or the plan says."""
        attempt = after.status.attempt
        failed = any(outcome.failure for outcome in outcomes)
        if after.rollout != before.rollout or (outcomes and not failed):
            return 0.0
        if not seen.gateway_known:
            return max(self._pace.active, min(self._pace.idle, 1.0))
        delay = self._pace.active if after.reconciling else self._pace.idle
        unready = any(not replica.ready for replica in seen.replicas or ())
        delay = min(delay, 5 * self._pace.active) if unready else delay
        if made.check_at is not None:
            delay = min(delay, max(0.0, made.check_at - seen.now))
        if attempt is not None:
            delay = min(max(delay, 0.05), max(0.05, attempt.next_at - seen.now))
        return delay


def _shown(old: Rollout, new: Rollout) -> Rollout:
    """The phase that ends, with the traffic that it came to."""
    return replace(new, phase=old.phase, phase_started_at=old.phase_started_at)


def _routed(before: Deployment, seen: Observed) -> Shares:
    if not seen.gateway_known:
        return before.status.shares
    return seen.route.shares if seen.route else Shares()


def _with_attempt(deployment: Deployment, made: Plan) -> Plan:
    """A wait that took too long is told with what was tried meanwhile: no room, no answer."""
    attempt, ready_timeout = deployment.status.attempt, "READY_TIMEOUT"
    if attempt is None:
        return made
    if made.rollback is not None and made.rollback.reason == ready_timeout:
        text = f"{made.rollback.message}; {attempt.message}"
        return replace(made, rollback=Failure(ready_timeout, text))
    if made.rollout.reason == ready_timeout and deployment.rollout.reason != ready_timeout:
        return replace(
            made, rollout=replace(made.rollout, message=f"{made.rollout.message}; {attempt.message}")
        )
    return made


def _with_failures(deployment: Deployment, made: Plan, outcomes: list[Outcome], seen: Observed) -> Plan:
    """The plan's outcome when an action has failed for good: the rollout fails with it."""
    outcome = worst(outcomes)
    rollout = deployment.rollout
    if outcome is None or not isinstance(outcome.failure, PermanentError) or deployment.deleting:
        return made
    if not rollout.active or rollout.state is RolloutState.PAUSED or outcome.action.kind not in FatalKinds:
        return made
    error = outcome.failure.error
    return fail(rollout, Failure(error.reason, f"could not {outcome.action.describe()}: {error}"), seen.now)
