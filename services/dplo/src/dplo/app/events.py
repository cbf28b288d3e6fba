"""Events of a deployment: what its watchers are told."""

import enum
from dataclasses import dataclass

from dplo.domain.rollout import Phase
from dplo.domain.traffic import NOTHING, Shares


class EventType(enum.StrEnum):
    """Kinds of event."""

    REVISION_CREATED = "revision_created"
    PHASE_CHANGED = "phase_changed"
    TRAFFIC_SHIFTED = "traffic_shifted"
    REPLICA_CHANGED = "replica_changed"
    CONDITION_CHANGED = "condition_changed"
    ROLLOUT_CHANGED = "rollout_changed"
    ATTEMPT_FAILED = "attempt_failed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `sequence` is given by the store. `at` in seconds since the epoch."""

    type: EventType
    message: str
    at: float
    revision: int
    phase: Phase
    subject: str = ""
    shares: Shares = NOTHING
    sequence: int = 0
