"""What the application needs of the world: small protocols, each with an in-memory implementation in
`memory`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dplo.app.events import Event
from dplo.domain.deployment import Deployment, Revision
from dplo.domain.gate import TrafficSample
from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.observed import Replica, RouteView
from dplo.domain.rollout import TraceReference
from dplo.domain.spec import PackagePin, VersionSpec
from dplo.domain.traffic import Shares


@dataclass(frozen=True, slots=True)
class Change:
    """One write of a deployment: the new state, its revision as it is then, and what happened.

    `deployment.row` is the row that was read: the write is refused with Aborted if it is not the present one
    (0: the deployment must not exist).
    """

    deployment: Deployment
    revisions: tuple[Revision, ...] = ()
    events: tuple[Event, ...] = ()


class StateStore(Protocol):
    """Deployments. Writes are compare-and-set and whole: state, history and events together or not at all."""

    async def read(self, name: DeploymentName) -> Deployment | None:
        """One deployment."""
        ...

    async def list(self, project: str | None, after: str, limit: int) -> Sequence[Deployment]:
        """Deployments in order of name, after that name; of one project, or of all."""
        ...

    async def find_model(self, model: str) -> Deployment | None:
        """The deployment of a model."""
        ...

    async def write(self, change: Change) -> Deployment:
        """Writes and gives what is stored then."""
        ...

    async def remove(self, name: DeploymentName, row: int) -> None:
        """Forgets a deployment, its history and its events."""
        ...


class HistoryStore(Protocol):
    """Revisions and events, as written by StateStore."""

    async def revision(self, name: DeploymentName, number: int) -> Revision | None:
        """One revision."""
        ...

    async def revisions(self, name: DeploymentName, below: int | None, limit: int) -> Sequence[Revision]:
        """Revisions, newest first, below that number."""
        ...

    async def events(self, name: DeploymentName, after: int, limit: int) -> Sequence[Event]:
        """Events after that sequence number, in order."""
        ...

    async def event_range(self, name: DeploymentName) -> tuple[int, int]:
        """The sequence numbers of the oldest event kept and of the newest; (0, 0) if there is none."""
        ...


class PackageSource(Protocol):
    """Where packages come from, and the cache of those that lie verified on this machine."""

    async def resolve(self, package: PackagePin) -> PackagePin:
        """The package with its digest. Raises NotFound, FailedPrecondition if the digest given is another."""
        ...

    async def fetch(self, package: PackagePin) -> None:
        """Puts the package into the cache, verified. Raises DataLoss if the content is not what the digest
        says.
        """
        ...

    def cached(self) -> frozenset[str]:
        """Digests of the packages in the cache."""
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """One replica to start. `labels` are given to the route provider."""

    deployment: DeploymentName
    model: ModelName
    replica: str
    ordinal: int
    version: VersionSpec


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log."""

    lines: tuple[str, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a cluster can hold and what is given away: cores, bytes, accelerators, replicas."""

    name: str
    cpu: float
    memory_bytes: int
    accelerators: int
    replicas: int
    used_cpu: float
    used_memory_bytes: int
    used_accelerators: int
    used_replicas: int


class ClusterOperator(Protocol):
    """One cluster. All calls are idempotent."""

    async def place(self, placement: Placement) -> None:
        """Starts a replica. Raises ResourceExhausted if there is no room or no port for it."""
        ...

    async def stop(self, deployment: DeploymentName, replica: str, drain_timeout: float) -> None:
        """Lets a replica finish what it has begun and end. One that is not there is no error."""
        ...

    async def observe(self, deployment: DeploymentName) -> Sequence[Replica]:
        """The replicas of a deployment, also those that are ending. `registered` is not filled."""
        ...

    async def logs(self, deployment: DeploymentName, replica: str, lines: int) -> LogTail:
        """The end of a replica's log, also of one that was stopped lately. Raises NotFound."""
        ...

    async def facts(self) -> ClusterFacts:
        """What it can hold and holds."""
        ...


class Gateway(Protocol):
    """The gateway's routes. Every method raises Unavailable when the gateway cannot be reached."""

    async def read_route(self, model: ModelName) -> RouteView | None:
        """The route of a model."""
        ...

    async def put_route(self, model: ModelName, route: RouteView, reason: str) -> None:
        """Makes the route so. `route.etag` is that of the route it takes the place of ("": there is none)."""
        ...

    async def delete_route(self, model: ModelName, etag: str) -> None:
        """Removes the route. One that is not there is no error."""
        ...

    async def sample(self, model: ModelName, since: float) -> Mapping[str, TrafficSample]:
        """What was measured per version since that time (seconds since the epoch)."""
        ...


class EndpointObserver(Protocol):
    """The route provider, as far as it tells who is registered."""

    async def registered(self, model: ModelName) -> frozenset[str]:
        """Ids of the replicas of a model that are given calls."""
        ...


class RolloutTracer(Protocol):
    """Spans that outlive the process: their ids are stored, and each is told when it has ended."""

    def begin(self) -> TraceReference:
        """Ids for a new rollout, a child of the current span if there is one, and for its first phase."""
        ...

    def next_phase(self, reference: TraceReference) -> TraceReference:
        """Ids for the next phase of the same rollout."""
        ...

    def within(self, reference: TraceReference | None) -> AbstractContextManager[None]:
        """Makes the present phase the parent of what is called; None: what is called is not traced at all."""
        ...

    def end_phase(self, reference: TraceReference, span: "SpanFacts") -> None:
        """Tells the span of the present phase."""
        ...

    def end_rollout(self, reference: TraceReference, span: "SpanFacts") -> None:
        """Tells the root span."""
        ...


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """What a span says. Times in seconds since the epoch; `error` is empty when all went well."""

    name: str
    started_at: float
    ended_at: float
    attributes: tuple[tuple[str, str | int], ...] = ()
    error: str = ""


__all__ = [
    "Change",
    "ClusterFacts",
    "ClusterOperator",
    "EndpointObserver",
    "Gateway",
    "HistoryStore",
    "LogTail",
    "PackageSource",
    "Placement",
    "RolloutTracer",
    "Shares",
    "SpanFacts",
    "StateStore",
]
