"""A deployment as it is stored, its history, and the rules of making a new revision of it."""

import enum
from dataclasses import dataclass, replace

from dplo.domain.conditions import Condition
from dplo.domain.drift import HopDrift
from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.observed import Replica
from dplo.domain.rollout import Phase, Rollout, RolloutState, TraceReference
from dplo.domain.spec import Spec
from dplo.domain.traffic import NOTHING, Shares


class Cause(enum.StrEnum):
    """What brought a revision about."""

    APPLY = "apply"
    ROLLBACK = "rollback"
    AUTOMATIC_ROLLBACK = "automatic_rollback"
    ABORT = "abort"

    @property
    def goes_back(self) -> bool:
        """Such a rollout is immediate and never gives up."""
        return self is not Cause.APPLY


@dataclass(frozen=True, slots=True)
class RevisionStep:
    """One thing that was done. Times in seconds since the epoch."""

    phase: Phase
    message: str
    started_at: float
    ended_at: float | None = None
    shares: Shares = NOTHING
    span_id: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One entry of the history."""

    number: int
    generation: int
    spec: Spec
    cause: Cause
    author: str
    message: str
    created_at: float
    trace_id: str = ""
    restored: int | None = None
    state: RolloutState = RolloutState.RUNNING
    state_message: str = ""
    ended_at: float | None = None
    steps: tuple[RevisionStep, ...] = ()

    def with_step(self, step: RevisionStep) -> "Revision":
        """With one more thing done; an open step is closed when the next one begins."""
        done = tuple(replace(s, ended_at=step.started_at) if s.ended_at is None else s for s in self.steps)
        return replace(self, steps=(*done, step))

    def ended(self, state: RolloutState, message: str, now: float) -> "Revision":
        """As it stands when its rollout is over."""
        done = tuple(replace(s, ended_at=now) if s.ended_at is None else s for s in self.steps)
        return replace(self, state=state, state_message=message, ended_at=now, steps=done)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last failed attempt at a kind of action, how many failed in a row, and when the next one is due."""

    kind: str
    count: int
    reason: str
    message: str
    next_at: float


@dataclass(frozen=True, slots=True)
class Status:
    """What was last observed."""

    replicas: tuple[Replica, ...] = ()
    shares: Shares = NOTHING
    conditions: tuple[Condition, ...] = ()
    drift: tuple[HopDrift, ...] = ()
    attempt: Attempt | None = None
    observed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as it is stored. `row` counts writes, for compare-and-set."""

    name: DeploymentName
    uid: str
    generation: int
    rollout: Rollout
    created_at: float
    updated_at: float
    last_complete: int | None = None
    observed_generation: int = 0
    deleted_at: float | None = None
    status: Status = Status()
    row: int = 0

    @property
    def spec(self) -> Spec:
        """What is declared."""
        return self.rollout.target

    @property
    def model(self) -> ModelName:
        """The model that is served."""
        return ModelName.parse(self.spec.model)

    @property
    def etag(self) -> str:
        """Changes with every change of what is declared."""
        return f"{self.uid[:8]}-{self.generation}"

    @property
    def deleting(self) -> bool:
        """Whether it is on its way out."""
        return self.deleted_at is not None

    @property
    def reconciling(self) -> bool:
        """Whether the service is working on it."""
        waits = self.rollout.state in {RolloutState.PAUSED, RolloutState.AWAITING_PROMOTION}
        return self.deleting or (self.rollout.active and not waits)


def begin(
    before: Deployment | None,
    name: DeploymentName,
    spec: Spec,
    *,
    uid: str,
    now: float,
    cause: Cause,
    trace: TraceReference,
) -> Deployment:
    """The deployment with a new revision of it begun, from whatever carries traffic now."""
    if before is None:
        rollout = Rollout(1, spec, now, phase_started_at=now, trace=trace)
        return Deployment(name, uid, 1, rollout, now, now)
    old = before.rollout
    rollout = Rollout(
        revision=old.revision + 1,
        target=spec,
        started_at=now,
        phase_started_at=now,
        base=old.carrying(),
        base_traffic=old.shares,
        fallback=None if cause.goes_back else before.last_complete,
        persistent=cause.goes_back,
        trace=trace,
    )
    return replace(
        before,
        generation=before.generation + 1,
        rollout=rollout,
        updated_at=now,
        status=replace(before.status, attempt=None),
    )
