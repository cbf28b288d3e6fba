"""Use cases of people: apply, plan, delete, roll back, promote, pause, resume, abort, and reading."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from chassis import errors
from chassis.clock import Clock

from dplo.app.chronicle import PHASE_TEXT, phase_span, rollout_span
from dplo.app.events import Event, EventType
from dplo.app.notices import Notices
from dplo.app.observe import World, observe
from dplo.app.ports import Change, HistoryStore, LogTail, RolloutTracer, StateStore
from dplo.domain import rollout as transitions
from dplo.domain.changes import FieldChange, find_changes
from dplo.domain.deployment import Cause, Deployment, Revision, RevisionStep, begin
from dplo.domain.drift import HopDrift, find_drift
from dplo.domain.names import DeploymentName
from dplo.domain.preview import PlannedAction, preview
from dplo.domain.rollout import Phase, Rollout, RolloutState
from dplo.domain.rules import check
from dplo.domain.spec import Spec

_ATTEMPTS = 20
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Applied:
    """What a change came to. `revision` is the one to wait for; `changed` whether it is new."""

    deployment: Deployment
    revision: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """What applying would do."""

    spec: Spec
    creates: bool
    changes: tuple[FieldChange, ...]
    actions: tuple[PlannedAction, ...]
    etag: str


class Deployments:
    """The use cases. Each write is read-modify-write with compare-and-set, tried again when the service wrote
    too.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        history: HistoryStore,
        world: World,
        clock: Clock,
        tracer: RolloutTracer,
        notices: Notices,
        wake: Callable[[DeploymentName], None],
    ) -> None:
        self._store = store
        self._history = history
        self._world = world
        self._clock = clock
        self._tracer = tracer
        self._notices = notices
        self._wake = wake

    async def get(self, name: DeploymentName) -> Deployment:
        """One deployment."""
        found = await self._store.read(name)
        if found is None:
            raise _not_found(name)
        return found

    async def list(self, project: str | None, after: str, limit: int) -> Sequence[Deployment]:
        """Deployments in order of name."""
        return await self._store.list(project, after, limit)

    async def plan(self, name: DeploymentName, spec: Spec) -> Preview:
        """What applying a declaration would do, without doing it."""
        resolved = await self._resolved(name, spec)
        before = await self._store.read(name)
        await self._check_model(name, resolved, before)
        changes = find_changes(before.spec if before else None, resolved)
        actions = preview(name, before, resolved) if changes or before is None else ()
        return Preview(resolved, before is None, changes, actions, before.etag if before else "")

    async def apply(
        self, name: DeploymentName, spec: Spec, *, etag: str, author: str, message: str, force: bool
    ) -> Applied:
        """Makes a new revision of a declaration, unless it is already what is declared."""
        resolved = await self._resolved(name, spec)

        async def change(before: Deployment | None) -> Change | None:
            _check_etag(name, before, etag)
            await self._check_model(name, resolved, before)
            if before is not None and before.deleting:
                raise _deleting(name)
            if before is not None and before.spec == resolved and not force:
                return None
            return await self._begin(before, name, resolved, Cause.APPLY, author, message)

        return await self._change(name, change)

    async def roll_back(
        self, name: DeploymentName, revision: int | None, *, etag: str, author: str, message: str
    ) -> Applied:
        """Goes back to an earlier revision, at once."""

        async def change(before: Deployment | None) -> Change | None:
            present = _present(name, before, etag)
            target = await self._earlier(present, revision)
            text = message or f"back to revision {target.number}"
            return await self._begin(
                present, name, target.spec, Cause.ROLLBACK, author, text, restored=target.number
            )

        return await self._change(name, change)

    async def abort(self, name: DeploymentName, *, etag: str, author: str, message: str) -> Applied:
        """Gives a rollout up and goes back to the last complete revision."""

        async def change(before: Deployment | None) -> Change | None:
            present = _present(name, before, etag)
            rollout = present.rollout
            if not rollout.active:
                raise errors.FailedPrecondition(
                    f"revision {rollout.revision} is {rollout.state.value}: there is no rollout to abort",
                    reason="ROLLOUT_ENDED",
                    metadata={"state": rollout.state.value},
                )
            if rollout.fallback is None:
                raise errors.FailedPrecondition(
                    f"{name} has no earlier complete revision to go back to; delete it instead",
                    reason="NO_EARLIER_REVISION",
                )
            target = await self._revision(name, rollout.fallback)
            text = message or f"revision {rollout.revision} aborted"
            return await self._begin(
                present, name, target.spec, Cause.ABORT, author, text, restored=target.number
            )

        return await self._change(name, change)

    async def promote(self, name: DeploymentName, *, etag: str, author: str, to_completion: bool) -> Applied:
        """Lets a rollout go on."""
        text = "promoted to completion" if to_completion else "promoted"
        return await self._transit(
            name, etag, author, text, lambda r: transitions.promote(r, to_completion=to_completion)
        )

    async def pause(self, name: DeploymentName, *, etag: str, author: str) -> Applied:
        """Holds a rollout where it is."""
        text = f"paused by {author or ANONYMOUS}"
        return await self._transit(name, etag, author, "paused", lambda r: transitions.pause(r, text))

    async def resume(self, name: DeploymentName, *, etag: str, author: str) -> Applied:
        """Lets a paused rollout go on."""
        return await self._transit(
            name, etag, author, "resumed", lambda r: transitions.resume(r, self._clock.time())
        )

    async def delete(self, name: DeploymentName, *, etag: str, author: str) -> Applied:
        """Takes a deployment out of service."""

        async def change(before: Deployment | None) -> Change | None:
            present = _present(name, before, etag, allow_deleting=True)
            if present.deleting:
                return None
            now = self._clock.time()
            ended = replace(present, deleted_at=now, updated_at=now, generation=present.generation + 1)
            event = _event(present.rollout, f"deletion asked for by {author or ANONYMOUS}", now)
            return Change(ended, (), (event,))

        return await self._change(name, change)

    async def revision(self, name: DeploymentName, number: int) -> Revision:
        """One entry of the history."""
        await self.get(name)
        return await self._revision(name, number)

    async def revisions(self, name: DeploymentName, below: int | None, limit: int) -> Sequence[Revision]:
        """History, newest first."""
        await self.get(name)
        return await self._history.revisions(name, below, limit)

    async def drift(self, name: DeploymentName) -> tuple[tuple[HopDrift, ...], float]:
        """Asks each hop now."""
        deployment = await self.get(name)
        seen = await observe(self._world, deployment, self._clock)
        return find_drift(deployment.rollout, seen), seen.now

    async def logs(self, name: DeploymentName, replica: str, lines: int) -> LogTail:
        """The end of a replica's log."""
        missing: errors.Error | None = None
        for operator in self._world.clusters.values():
            try:
                return await operator.logs(name, replica, lines)
            except errors.NotFound as error:
                missing = error
        raise missing or _not_found(name)

    async def settled(self, name: DeploymentName, revision: int) -> Deployment | None:
        """Waits until the rollout of a revision is over, waits for a person, or the deployment is gone
        (None).

        A revision that another one has taken the place of is followed by its end in the history.
        """
        while True:
            seen = self._notices.count(name)
            deployment = await self._store.read(name)
            if deployment is None or deployment.rollout.revision != revision:
                return deployment
            if not deployment.reconciling:
                return deployment
            await self._notices.wait(name, seen)

    async def changes(self, name: DeploymentName) -> AsyncIterator[Deployment]:
        """The deployment as it is, and again whenever it was written, until it is gone."""
        while True:
            seen = self._notices.count(name)
            deployment = await self._store.read(name)
            if deployment is None:
                return
            yield deployment
            await self._notices.wait(name, seen)

    async def gone(self, name: DeploymentName) -> None:
        """Waits until nothing is left of a deployment."""
        while True:
            seen = self._notices.count(name)
            if await self._store.read(name) is None:
                return
            await self._notices.wait(name, seen)

    async def _resolved(self, name: DeploymentName, spec: Spec) -> Spec:
        """The declaration with digests; every violation is told at once."""
        violations = list(check(name, spec, frozenset(self._world.clusters)))
        if violations:
            raise _invalid(violations)
        versions = []
        for index, version in enumerate(spec.versions):
            try:
                pin = await self._world.packages.resolve(version.package)
            except (errors.NotFound, errors.FailedPrecondition, errors.InvalidArgument) as error:
                digest = ".digest" if isinstance(error, errors.FailedPrecondition) else ".package"
                field = f"versions[{index}].package{digest}"
                violation = errors.FieldViolation(field, error.message, error.reason)
                raise type(error)(
                    f"{field}: {error.message}",
                    reason=error.reason,
                    metadata=error.metadata,
                    violations=[violation],
                ) from error
            versions.append(replace(version, package=pin))
        return replace(spec, versions=tuple(versions))

    async def _check_model(self, name: DeploymentName, spec: Spec, before: Deployment | None) -> None:
        if before is not None:
            if before.spec.model != spec.model:
                text = f"cannot be changed: it is '{before.spec.model}'; declare another deployment instead"
                raise _invalid([errors.FieldViolation("model", text, "IMMUTABLE")])
            return
        other = await self._store.find_model(spec.model)
        if other is not None and other.name != name:
            raise errors.AlreadyExists(
                f"{spec.model} is deployed by {other.name} already; a model has one deployment",
                reason="MODEL_DEPLOYED",
                metadata={"deployment": str(other.name)},
                violations=[errors.FieldViolation("model", f"is deployed by {other.name} already")],
            )

    async def _begin(
        self,
        before: Deployment | None,
        name: DeploymentName,
        spec: Spec,
        cause: Cause,
        author: str,
        message: str,
        restored: int | None = None,
    ) -> Change:
        now = self._clock.time()
        trace = self._tracer.begin()
        after = begin(before, name, spec, uid=uuid.uuid4().hex, now=now, cause=cause, trace=trace)
        number = after.rollout.revision
        who = author or ANONYMOUS
        step = RevisionStep(
            Phase.RESOLVE, PHASE_TEXT[Phase.RESOLVE], now, span_id=trace.phase_span_id, author=who
        )
        made = Revision(
            number, after.generation, spec, cause, who, message, now,
            trace_id=trace.trace_id, restored=restored, steps=(step,),
        )  # fmt: skip
        revisions = [made]
        if before is not None and before.rollout.active:
            old = await self._revision(name, before.rollout.revision)
            ended = old.ended(RolloutState.SUPERSEDED, f"superseded by revision {number}", now)
            revisions.insert(0, ended)
            self._end_spans(before, ended.state_message, now)
        text = f"revision {number} by {who}" + (f": {message}" if message else "")
        event = Event(EventType.REVISION_CREATED, text, now, number, Phase.RESOLVE)
        return Change(after, tuple(revisions), (event,))

    def _end_spans(self, before: Deployment, message: str, now: float) -> None:
        old = before.rollout
        self._tracer.end_phase(old.trace, phase_span(before, old, now))
        ended = replace(old, state=RolloutState.SUPERSEDED, message=message)
        self._tracer.end_rollout(old.trace, rollout_span(before, ended, now))

    async def _earlier(self, present: Deployment, number: int | None) -> Revision:
        if number is not None:
            if number == present.rollout.revision:
                raise errors.InvalidArgument(
                    f"revision {number} is the present one; choose an earlier one",
                    reason="REVISION_PRESENT",
                    violations=[errors.FieldViolation("revision", "is the present revision")],
                )
            return await self._revision(present.name, number)
        below: int | None = present.rollout.revision
        while below is not None:
            batch = await self._history.revisions(present.name, below, 50)
            for revision in batch:
                if revision.state is RolloutState.COMPLETE and revision.spec != present.spec:
                    return revision
            below = batch[-1].number if batch else None
        raise errors.FailedPrecondition(
            f"{present.name} has no earlier complete revision to go back to",
            reason="NO_EARLIER_REVISION",
        )

    async def _revision(self, name: DeploymentName, number: int) -> Revision:
        found = await self._history.revision(name, number)
        if found is None:
            raise errors.NotFound(
                f"{name.revision(number)} does not exist",
                reason="REVISION_NOT_FOUND",
                metadata={"revision": name.revision(number)},
            )
        return found

    async def _transit(
        self,
        name: DeploymentName,
        etag: str,
        author: str,
        text: str,
        move: Callable[[Rollout], Rollout],
    ) -> Applied:
        """A change of the rollout itself, noted in its history."""

        async def change(before: Deployment | None) -> Change | None:
            present = _present(name, before, etag)
            now = self._clock.time()
            rollout = move(present.rollout)
            after = replace(present, rollout=rollout, updated_at=now)
            revision = await self._revision(name, rollout.revision)
            step = RevisionStep(
                rollout.phase, text, now, span_id=rollout.trace.phase_span_id, author=author or ANONYMOUS
            )
            noted = replace(revision.with_step(step), state=rollout.state, state_message=rollout.message)
            event = _event(rollout, f"revision {rollout.revision} {text} by {author or ANONYMOUS}", now)
            return Change(after, (noted,), (event,))

        return await self._change(name, change)

    async def _change(
        self, name: DeploymentName, change: Callable[[Deployment | None], Awaitable[Change | None]]
    ) -> Applied:
        for attempt in range(_ATTEMPTS):
            before = await self._store.read(name)
            made = await change(before)
            if made is None:
                assert before is not None
                return Applied(before, before.rollout.revision, False)
            try:
                written = await self._store.write(made)
            except errors.Aborted:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            await self._notices.tell(name)
            self._wake(name)
            return Applied(written, written.rollout.revision, True)
        raise AssertionError("the loop returns or raises")


def _event(rollout: Rollout, message: str, now: float) -> Event:
    return Event(EventType.ROLLOUT_CHANGED, message, now, rollout.revision, rollout.phase)


def _present(
    name: DeploymentName, before: Deployment | None, etag: str, *, allow_deleting: bool = False
) -> Deployment:
    if before is None:
        raise _not_found(name)
    _check_etag(name, before, etag)
    if before.deleting and not allow_deleting:
        raise _deleting(name)
    return before


def _check_etag(name: DeploymentName, before: Deployment | None, etag: str) -> None:
    if not etag:
        return
    if before is None:
        raise _not_found(name)
    if etag not in ("*", before.etag):
        raise errors.Aborted(
            f"{name} has changed since it was read: its etag is '{before.etag}', not '{etag}'; "
            "read it again and apply the change to what is there now",
            reason="ETAG_MISMATCH",
            metadata={"etag": before.etag, "given": etag},
            violations=[errors.FieldViolation("etag", f"is '{etag}', the present one is '{before.etag}'")],
        )


def _not_found(name: DeploymentName) -> errors.NotFound:
    return errors.NotFound(
        f"{name} does not exist", reason="DEPLOYMENT_NOT_FOUND", metadata={"deployment": str(name)}
    )


def _deleting(name: DeploymentName) -> errors.FailedPrecondition:
    return errors.FailedPrecondition(
        f"{name} is being deleted; wait until it is gone, then apply again",
        reason="DEPLOYMENT_DELETING",
        metadata={"deployment": str(name)},
    )


def _invalid(violations: list[errors.FieldViolation]) -> errors.InvalidArgument:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return errors.InvalidArgument(
        f"the declaration is not valid: {first.field}: {first.description}{more}",
        reason="DECLARATION_INVALID",
        violations=violations,
    )
