"""The whole application over the in-memory ports and virtual time: what the tests of use cases and loops
share.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from chassis.testing import FakeClock
from dplo.adapters.memory import MemoryCluster, MemoryGateway, MemoryPackages, MemoryStore, MemoryTracer
from dplo.app.deployments import Applied, Deployments
from dplo.app.notices import Notices
from dplo.app.observe import World
from dplo.app.ports import HistoryStore, StateStore
from dplo.app.reconcile import Reconciler, Result
from dplo.domain.deployment import Deployment
from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.spec import PackagePin, Spec, Strategy, VersionSpec
from dplo.domain.traffic import Shares

NAME = DeploymentName("digits", "classifier")
MODEL = "projects/digits/models/classifier"


def digest(version: str) -> str:
    return "sha256:" + (version * 64)[:64]


def version(name: str, replicas: int = 1, **more: object) -> VersionSpec:
    return VersionSpec(name, PackagePin(f"{MODEL}/packages/{name}"), replicas, **more)  # type: ignore[arg-type]


def spec(traffic: dict[str, int], *versions: VersionSpec, **strategy: object) -> Spec:
    declared = versions or tuple(version(name) for name in traffic)
    return Spec(MODEL, declared, Shares.percent(traffic), Strategy(**strategy))  # type: ignore[arg-type]


@dataclass
class Service:
    """Everything that survives a crash of the service, and the service itself, which can be started anew."""

    store: StateStore = field(default_factory=MemoryStore)
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    clock: FakeClock = field(default_factory=FakeClock)
    tracer: MemoryTracer = field(default_factory=MemoryTracer)
    packages: MemoryPackages = field(
        default_factory=lambda: MemoryPackages({f"{MODEL}/packages/{v}": digest(v) for v in "1234"})
    )
    fault: Callable[[str], None] = lambda point: None

    def __post_init__(self) -> None:
        self.gateway = MemoryGateway(self.cluster)
        self.start()

    @property
    def history(self) -> HistoryStore:
        return self.store  # type: ignore[return-value]  # the in-memory and the SQL store are both

    def start(self) -> None:
        """As after a crash: nothing is remembered but what was stored."""
        self.notices = Notices()
        world = World(self.packages, {"clusters/local": self.cluster}, self.gateway, self.gateway)
        self.reconciler = Reconciler(
            store=self.store,
            history=self.history,
            world=world,
            clock=self.clock,
            tracer=self.tracer,
            notices=self.notices,
            fault=lambda point: self.fault(point),
        )
        self.deployments = Deployments(
            store=self.store,
            history=self.history,
            world=world,
            clock=self.clock,
            tracer=self.tracer,
            notices=self.notices,
            wake=lambda name: None,
        )

    async def apply(self, wanted: Spec, **more: object) -> Applied:
        options: dict[str, object] = {"etag": "", "author": "ada", "message": "", "force": False, **more}
        return await self.deployments.apply(NAME, wanted, **options)  # type: ignore[arg-type]

    async def look(self) -> Result:
        """One look, and then the time passes that it asks for."""
        result = await self.reconciler.reconcile_once(NAME)
        await self.clock.advance(result.delay)
        return result

    async def settle(self, looks: int = 80) -> Deployment | None:
        """Looks until nothing changes by itself any more."""
        for _ in range(looks):
            result = await self.look()
            deployment = await self.store.read(NAME)
            if result.gone or deployment is None:
                return None
            if not deployment.reconciling and result.delay > 0:
                return deployment
        return await self.store.read(NAME)

    async def deployed(self, wanted: Spec, **more: object) -> Deployment:
        await self.apply(wanted, **more)
        deployment = await self.settle()
        assert deployment is not None
        return deployment

    @property
    def weights(self) -> dict[str, int]:
        route = self.gateway.routes.get(ModelName.parse(MODEL))
        return dict(route.weights) if route else {}

    @property
    def running(self) -> list[str]:
        return sorted(replica.version for replica in self.cluster.replicas.values())
