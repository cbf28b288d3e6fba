"""The rollout of one revision: its state, and the steps that people and failures take it through."""

import enum
from dataclasses import dataclass, replace

from chassis import errors

from dplo.domain.spec import Spec, Step, VersionSpec
from dplo.domain.traffic import NOTHING, Shares, blend


class RolloutState(enum.StrEnum):
    """How a rollout stands."""

    RUNNING = "running"
    AWAITING_PROMOTION = "awaiting_promotion"
    PAUSED = "paused"
    COMPLETE = "complete"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in {
            RolloutState.COMPLETE,
            RolloutState.FAILED,
            RolloutState.ROLLED_BACK,
            RolloutState.SUPERSEDED,
        }


class Phase(enum.StrEnum):
    """What a rollout is doing; the order is that of the members."""

    RESOLVE = "resolve"
    PLACE = "place"
    WAIT = "wait"
    SHIFT = "shift"
    DRAIN = "drain"
    DONE = "done"

    @property
    def order(self) -> int:
        """Position, from 0."""
        return list(Phase).index(self)


@dataclass(frozen=True, slots=True)
class TraceReference:
    """Ids of the rollout's root span and of the span of the present phase, W3C hexadecimal."""

    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    phase_span_id: str = ""
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as it is stored. Times in seconds since the epoch.

    `base` and `base_traffic` are what carried traffic when it began. `fallback` is the revision to go back
    to. `persistent` rollouts (those that go back) are immediate and never give up. `step` is the index of the
    step in effect, -1 before any traffic has moved; `promoted` the highest step that a person has let go on.
    """

    revision: int
    target: Spec
    started_at: float
    base: tuple[VersionSpec, ...] = ()
    base_traffic: Shares = NOTHING
    fallback: int | None = None
    persistent: bool = False
    state: RolloutState = RolloutState.RUNNING
    phase: Phase = Phase.RESOLVE
    phase_started_at: float = 0.0
    placing_since: float | None = None
    step: int = -1
    step_started_at: float | None = None
    promoted: int = -1
    unconditional: bool = False
    ended_at: float | None = None
    reason: str = ""
    message: str = ""
    trace: TraceReference = TraceReference()

    @property
    def stepped(self) -> bool:
        """Whether the declared steps are taken: there is traffic to move, and it is not a way back."""
        moves = bool(self.base_traffic) and not self.base_traffic.same_split(self.target.traffic)
        return moves and not self.persistent

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that are really taken, up to the whole; just that one where nothing is moved by steps."""
        declared = self.target.strategy.steps
        if not self.stepped:
            return (Step(100),)
        if declared and declared[-1].percent == 100:
            return declared
        return (*declared, Step(100))

    @property
    def shares(self) -> Shares:
        """The traffic that the step in effect asks for; nothing if none has ever moved."""
        if self.state is RolloutState.COMPLETE:
            return self.target.traffic
        if self.step < 0:
            return self.base_traffic
        return blend(self.base_traffic, self.target.traffic, self.steps[self.step].percent)

    @property
    def gated(self) -> bool:
        """Whether the gate is asked at the step in effect: a declared one that nobody promoted past it."""
        declared = self.stepped and 0 <= self.step < len(self.target.strategy.steps)
        return declared and self.target.strategy.gate is not None and not self.unconditional

    @property
    def percent(self) -> int:
        """How far traffic has moved."""
        return 0 if self.step < 0 else self.steps[self.step].percent

    @property
    def at_last_step(self) -> bool:
        """Whether the traffic is meant to be as declared."""
        return self.step == len(self.steps) - 1

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return not self.state.ended

    def growing(self) -> frozenset[str]:
        """Versions that get more traffic by this rollout: the ones that the gate judges."""
        goal = self.target.traffic
        return frozenset(v for v in goal.versions if goal[v] > self.base_traffic[v])

    def carrying(self) -> tuple[VersionSpec, ...]:
        """The versions that carry traffic now: what the next rollout starts from."""
        shares = self.shares.versions
        settled = self.phase.order >= Phase.SHIFT.order and self.step >= 0
        first, second = (self.target.versions, self.base) if settled else (self.base, self.target.versions)
        found: dict[str, VersionSpec] = {}
        for version in (*first, *second):
            if version.version in shares:
                found.setdefault(version.version, version)
        return tuple(found[name] for name in sorted(found))


def promote(rollout: Rollout, *, to_completion: bool) -> Rollout:
    """Lets a rollout go on from the step that waits, or through all of them."""
    if not rollout.active:
        raise errors.FailedPrecondition(
            f"revision {rollout.revision} is {rollout.state.value}: there is nothing to promote",
            reason="ROLLOUT_ENDED",
            metadata={"state": rollout.state.value},
        )
    if to_completion:
        return replace(
            rollout,
            promoted=len(rollout.steps),
            unconditional=True,
            state=RolloutState.RUNNING,
            reason="",
            message="",
        )
    if rollout.state is not RolloutState.AWAITING_PROMOTION:
        raise errors.FailedPrecondition(
            f"revision {rollout.revision} does not wait for a promotion, it is {rollout.state.value}"
            f" in phase {rollout.phase.value}; to_completion promotes all the same",
            reason="ROLLOUT_NOT_WAITING",
            metadata={"state": rollout.state.value, "phase": rollout.phase.value},
        )
    return replace(rollout, promoted=rollout.step, state=RolloutState.RUNNING, reason="", message="")


def pause(rollout: Rollout, message: str) -> Rollout:
    """Holds a rollout where it is."""
    if not rollout.active:
        raise errors.FailedPrecondition(
            f"revision {rollout.revision} is {rollout.state.value}: there is nothing to pause",
            reason="ROLLOUT_ENDED",
            metadata={"state": rollout.state.value},
        )
    return replace(rollout, state=RolloutState.PAUSED, reason="PAUSED", message=message)


def resume(rollout: Rollout, now: float) -> Rollout:
    """Lets a paused rollout go on. The time to become ready begins anew."""
    if rollout.state is not RolloutState.PAUSED:
        raise errors.FailedPrecondition(
            f"revision {rollout.revision} is not paused, it is {rollout.state.value}",
            reason="ROLLOUT_NOT_PAUSED",
            metadata={"state": rollout.state.value},
        )
    since = None if rollout.placing_since is None else now
    started = None if rollout.step_started_at is None else now
    return replace(
        rollout,
        state=RolloutState.RUNNING,
        reason="",
        message="",
        placing_since=since,
        step_started_at=started,
    )
