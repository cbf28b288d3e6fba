"""In-memory implementations of the ports: for tests and for trying things out without a disk or a network."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from chassis import errors

from dplo.app.events import Event
from dplo.app.ports import Change, ClusterFacts, LogTail, Placement, SpanFacts
from dplo.domain.deployment import Deployment, Revision
from dplo.domain.gate import TrafficSample
from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.observed import Replica, ReplicaState, RouteView
from dplo.domain.rollout import TraceReference
from dplo.domain.spec import PackagePin


class MemoryStore:
    """StateStore and HistoryStore."""

    def __init__(self) -> None:
        self._deployments: dict[DeploymentName, Deployment] = {}
        self._revisions: defaultdict[DeploymentName, dict[int, Revision]] = defaultdict(dict)
        self._events: defaultdict[DeploymentName, list[Event]] = defaultdict(list)
        self._sequence = 0

    async def read(self, name: DeploymentName) -> Deployment | None:
        """See StateStore."""
        return self._deployments.get(name)

    async def list(self, project: str | None, after: str, limit: int) -> Sequence[Deployment]:
        """See StateStore."""
        ordered = sorted(self._deployments.values(), key=lambda d: str(d.name))
        return [d for d in ordered if str(d.name) > after and project in (None, d.name.project)][:limit]

    async def find_model(self, model: str) -> Deployment | None:
        """See StateStore."""
        return next((d for d in self._deployments.values() if d.spec.model == model), None)

    async def write(self, change: Change) -> Deployment:
        """See StateStore."""
        name = change.deployment.name
        present = self._deployments.get(name)
        if (present.row if present else 0) != change.deployment.row:
            raise errors.Aborted(f"{name} was written at the same time", reason="STATE_CONFLICT")
        written = replace(change.deployment, row=change.deployment.row + 1)
        self._deployments[name] = written
        self._revisions[name].update({r.number: r for r in change.revisions})
        for event in change.events:
            self._sequence += 1
            self._events[name].append(replace(event, sequence=self._sequence))
        return written

    async def remove(self, name: DeploymentName, row: int) -> None:
        """See StateStore."""
        present = self._deployments.get(name)
        if present is None or present.row != row:
            raise errors.Aborted(f"{name} was written at the same time", reason="STATE_CONFLICT")
        del self._deployments[name]
        self._revisions.pop(name, None)
        self._events.pop(name, None)

    async def revision(self, name: DeploymentName, number: int) -> Revision | None:
        """See HistoryStore."""
        return self._revisions[name].get(number)

    async def revisions(self, name: DeploymentName, below: int | None, limit: int) -> Sequence[Revision]:
        """See HistoryStore."""
        numbers = sorted((n for n in self._revisions[name] if below is None or n < below), reverse=True)
        return [self._revisions[name][n] for n in numbers[:limit]]

    async def events(self, name: DeploymentName, after: int, limit: int) -> Sequence[Event]:
        """See HistoryStore."""
        return [e for e in self._events[name] if e.sequence > after][:limit]

    async def event_range(self, name: DeploymentName) -> tuple[int, int]:
        """See HistoryStore."""
        kept = self._events[name]
        return (kept[0].sequence, kept[-1].sequence) if kept else (0, 0)


class MemoryPackages:
    """PackageSource: `known` maps names to digests; what is in `broken` fails to be fetched."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)
        self.broken: dict[str, errors.Error] = {}
        self.fetched: list[str] = []
        self.cache: set[str] = set()

    async def resolve(self, package: PackagePin) -> PackagePin:
        """See PackageSource."""
        digest = self.known.get(package.name)
        if digest is None:
            raise errors.NotFound(f"{package.name} does not exist", reason="PACKAGE_NOT_FOUND")
        if package.digest not in ("", digest):
            raise errors.FailedPrecondition(
                f"{package.name} has the digest {digest}, declared is {package.digest}",
                reason="DIGEST_MISMATCH",
            )
        return replace(package, digest=digest)

    async def fetch(self, package: PackagePin) -> None:
        """See PackageSource."""
        error = self.broken.get(package.name)
        if error is not None:
            raise error
        self.fetched.append(package.name)
        self.cache.add(package.digest)

    def cached(self) -> frozenset[str]:
        """See PackageSource."""
        return frozenset(self.cache)


class MemoryCluster:
    """ClusterOperator whose replicas are healthy as soon as they are placed, unless told otherwise."""

    def __init__(self, *, initial: ReplicaState = ReplicaState.HEALTHY, capacity: int = 1000) -> None:
        self.initial = initial
        self.capacity = capacity
        self.replicas: dict[str, Replica] = {}
        self.placed: list[str] = []
        self.stopped: list[str] = []
        self.lingering = False

    async def place(self, placement: Placement) -> None:
        """See ClusterOperator."""
        if placement.replica in self.replicas:
            return
        if len(self.replicas) >= self.capacity:
            raise errors.ResourceExhausted(
                f"the cluster has room for {self.capacity} replicas", reason="NO_CAPACITY"
            )
        self.placed.append(placement.replica)
        version = placement.version
        self.replicas[placement.replica] = Replica(
            placement.replica,
            version.version,
            version.fingerprint,
            self.initial,
            placement.ordinal,
            cluster=version.cluster,
        )

    async def stop(self, deployment: DeploymentName, replica: str, drain_timeout: float) -> None:
        """See ClusterOperator."""
        if replica not in self.replicas:
            return
        self.stopped.append(replica)
        if self.lingering:
            self.replicas[replica] = replace(self.replicas[replica], state=ReplicaState.DRAINING)
        else:
            del self.replicas[replica]

    async def observe(self, deployment: DeploymentName) -> Sequence[Replica]:
        """See ClusterOperator."""
        return list(self.replicas.values())

    async def logs(self, deployment: DeploymentName, replica: str, lines: int) -> LogTail:
        """See ClusterOperator."""
        if replica not in self.replicas:
            raise errors.NotFound(f"replica {replica} does not exist", reason="REPLICA_NOT_FOUND")
        return LogTail((), False)

    async def facts(self) -> ClusterFacts:
        """See ClusterOperator."""
        return ClusterFacts("clusters/local", 0, 0, 0, self.capacity, 0, 0, 0, len(self.replicas))

    def become(self, state: ReplicaState, message: str = "", version: str | None = None) -> None:
        """Puts all replicas, or those of a version, into a state."""
        for key, replica in self.replicas.items():
            if version in (None, replica.version):
                self.replicas[key] = replace(replica, state=state, message=message)


class MemoryGateway:
    """Gateway and EndpointObserver. Every healthy replica of `cluster` counts as registered."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.routes: dict[ModelName, RouteView] = {}
        self.samples: dict[str, TrafficSample] = {}
        self.down = False
        self.writes: list[RouteView] = []

    async def read_route(self, model: ModelName) -> RouteView | None:
        """See Gateway."""
        self._check()
        return self.routes.get(model)

    async def put_route(self, model: ModelName, route: RouteView, reason: str) -> None:
        """See Gateway."""
        self._check()
        present = self.routes.get(model)
        if (present.etag if present else "") != route.etag:
            raise errors.Aborted("the route has changed", reason="ETAG_MISMATCH")
        written = replace(route, etag=str(len(self.writes) + 1))
        self.writes.append(written)
        self.routes[model] = written

    async def delete_route(self, model: ModelName, etag: str) -> None:
        """See Gateway."""
        self._check()
        self.routes.pop(model, None)

    async def sample(self, model: ModelName, since: float) -> Mapping[str, TrafficSample]:
        """See Gateway."""
        self._check()
        return self.samples

    async def registered(self, model: ModelName) -> frozenset[str]:
        """See EndpointObserver."""
        self._check()
        alive = (ReplicaState.HEALTHY, ReplicaState.UNHEALTHY)
        return frozenset(r.id for r in self._cluster.replicas.values() if r.state in alive)

    def _check(self) -> None:
        if self.down:
            raise errors.Unavailable("connection refused", reason="UNAVAILABLE")


class MemoryTracer:
    """RolloutTracer that keeps the spans told to it."""

    def __init__(self) -> None:
        self.phases: list[tuple[TraceReference, SpanFacts]] = []
        self.rollouts: list[tuple[TraceReference, SpanFacts]] = []
        self._count = 0

    def begin(self) -> TraceReference:
        """See RolloutTracer."""
        self._count += 1
        trace = f"{self._count:032x}"
        return TraceReference(trace, self._span(), "", self._span(), True)

    def next_phase(self, reference: TraceReference) -> TraceReference:
        """See RolloutTracer."""
        return replace(reference, phase_span_id=self._span())

    @contextmanager
    def within(self, reference: TraceReference | None) -> Iterator[None]:
        """See RolloutTracer."""
        yield

    def end_phase(self, reference: TraceReference, span: SpanFacts) -> None:
        """See RolloutTracer."""
        self.phases.append((reference, span))

    def end_rollout(self, reference: TraceReference, span: SpanFacts) -> None:
        """See RolloutTracer."""
        self.rollouts.append((reference, span))

    def _span(self) -> str:
        self._count += 1
        return f"{self._count:016x}"
