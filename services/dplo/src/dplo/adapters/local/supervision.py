"""What to do for one replica, from its record and what is seen of its process. Pure."""

from dataclasses import dataclass, replace

from dplo.adapters.local.record import Exit, ReplicaRecord
from dplo.domain.observed import ReplicaState


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a replica that ended by itself is started again. Seconds.

    The first restart is at once; each further one waits twice as long, until a replica has lived for
    `stable_after`. After `looping_after` such ends in a row it counts as crash-looping.
    """

    first_delay: float = 0.5
    largest_delay: float = 60.0
    stable_after: float = 10.0
    looping_after: int = 3

    def delay(self, failures: int) -> float:
        """The wait before a start after that many short lives in a row."""
        if failures <= 1:
            return 0.0
        return min(self.largest_delay, self.first_delay * 2.0 ** min(failures - 2, 32))


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What is seen of a process. `known` says that one was started and its end not noted yet."""

    alive: bool
    known: bool
    exit_code: int | None = None
    healthy: bool = False
    was_healthy: bool = False
    unhealthy_since: float | None = None


class Start:
    """Start it."""


class Terminate:
    """Ask it to end."""


class Kill:
    """End it and all it started."""


class Remove:
    """Forget it."""


Step = type[Start] | type[Terminate] | type[Kill] | type[Remove] | None

KILL_GRACE = 2.0


def supervise(
    record: ReplicaRecord, facts: ProcessFacts, now: float, policy: RestartPolicy, unhealthy_limit: float
) -> tuple[ReplicaRecord, Step]:
    """The record as it is after this look, and what to do."""
    if record.stopping:
        return _stop(record, facts, now)
    if facts.alive:
        if facts.unhealthy_since is not None and now - facts.unhealthy_since > unhealthy_limit:
            return record, Kill
        lived = now - record.started_at if record.started_at is not None else 0.0
        if record.failures and lived >= policy.stable_after and facts.healthy:
            return replace(record, failures=0), None
        return record, None
    if facts.known:
        return _note_end(record, facts, now, policy), None
    return (record, Start) if now >= record.next_start_at else (record, None)


def _stop(record: ReplicaRecord, facts: ProcessFacts, now: float) -> tuple[ReplicaRecord, Step]:
    if not facts.alive:
        return record, Remove
    if not record.term_sent:
        return replace(record, term_sent=True), Terminate
    asked = record.stop_requested_at or now
    return (record, Kill) if now - asked > record.drain_timeout + KILL_GRACE else (record, None)


def _note_end(record: ReplicaRecord, facts: ProcessFacts, now: float, policy: RestartPolicy) -> ReplicaRecord:
    lasted = now - record.started_at if record.started_at is not None else 0.0
    failures = 1 if lasted >= policy.stable_after else record.failures + 1
    return replace(
        record,
        last_exit=Exit(now, lasted, facts.exit_code),
        failures=failures,
        restarts=record.restarts + 1,
        next_start_at=now + policy.delay(failures),
    )


def replica_state(record: ReplicaRecord, facts: ProcessFacts, policy: RestartPolicy) -> ReplicaState:
    """What the cluster says of the replica."""
    if record.stopping:
        return ReplicaState.DRAINING
    if record.failures >= policy.looping_after and not facts.healthy:
        return ReplicaState.CRASH_LOOPING
    if facts.alive and facts.healthy:
        return ReplicaState.HEALTHY
    if facts.alive:
        return ReplicaState.UNHEALTHY if facts.was_healthy else ReplicaState.STARTING
    return ReplicaState.PENDING


def describe_end(record: ReplicaRecord) -> str:
    """How it last ended, for a person."""
    end = record.last_exit
    if end is None:
        return ""
    how = "ended" if end.code is None else _exit_text(end.code)
    return f"{how} after {end.lasted:.1f} s, {record.failures} times in a row"


def _exit_text(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
