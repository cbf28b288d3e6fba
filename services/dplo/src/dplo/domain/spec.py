"""What is declared of a deployment, as values."""

import enum
import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field

from dplo.domain.traffic import Shares

DEFAULT_CLUSTER = "clusters/local"
DEFAULT_READY_TIMEOUT = 300.0
DEFAULT_DRAIN_TIMEOUT = 30.0
DEFAULT_GATE_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class PackagePin:
    """A package and, once resolved, the digest of its content."""

    name: str
    digest: str = ""

    @property
    def version(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def model(self) -> str:
        """The model that the package is a version of."""
        return self.name.rpartition("/packages/")[0]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Accelerators of one kind: `nvidia-gpu` or `amd-gpu`."""

    kind: str
    count: int
    product: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica may use; 0 is "not said". Memory in bytes."""

    cpu: float = 0.0
    memory_bytes: int = 0
    accelerator: Accelerator | None = None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options of the model server; None and 0 are "what the package says". Times in seconds."""

    max_batch_items: int = 0
    max_batch_delay: float | None = None
    max_queue_items: int = 0
    instances: int = 0
    drain_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """One version and how it runs."""

    version: str
    package: PackagePin
    replicas: int = 1
    cluster: str = DEFAULT_CLUSTER
    resources: Resources = Resources()
    environment: tuple[tuple[str, str], ...] = ()
    server: ServerOptions = ServerOptions()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Tells replicas that are alike from those that must be replaced: all of it but the number of
        replicas.
        """
        return _fingerprint(self)

    @property
    def drain_timeout(self) -> float:
        """Seconds that a replica may take to finish what it has begun."""
        return DEFAULT_DRAIN_TIMEOUT if self.server.drain_timeout is None else self.server.drain_timeout


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rollout: how far traffic has moved (percent), for at least how long (seconds)."""

    percent: int
    min_duration: float = 0.0
    manual_promotion: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """What must hold at each step. Rates from 0 to 1, times in seconds."""

    max_error_rate: float | None = None
    latency_percentile: float | None = None
    max_latency: float | None = None
    max_shadow_disagreement: float | None = None
    min_requests: int = 1
    window: float = DEFAULT_GATE_WINDOW


@functools.lru_cache(maxsize=4096)
def _fingerprint(version: VersionSpec) -> str:
    """Asked for at every look at every replica, so it is remembered."""
    content = asdict(version)
    del content["replicas"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class FailureAction(enum.StrEnum):
    """What happens when a rollout fails."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a change is rolled out. `ready_timeout` in seconds."""

    steps: tuple[Step, ...] = ()
    gate: Gate | None = None
    on_failure: FailureAction = FailureAction.ROLLBACK
    max_surge: int | None = None
    ready_timeout: float = DEFAULT_READY_TIMEOUT


@dataclass(frozen=True, slots=True)
class Mirror:
    """A version that gets copies of requests."""

    version: str
    percent: float


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """How an image is made of the package."""

    base_image: str = ""
    repository: str = ""
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """A deployment as declared. `policy` is the route's policy in wire format, passed on unread."""

    model: str
    versions: tuple[VersionSpec, ...]
    traffic: Shares
    strategy: Strategy = Strategy()
    mirrors: tuple[Mirror, ...] = ()
    image_build: ImageBuild | None = None
    policy: bytes = b""
    display_name: str = ""
    description: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    source_commit: str = field(default="")

    def version(self, name: str) -> VersionSpec | None:
        """The version of that name, if it is declared."""
        return next((v for v in self.versions if v.version == name), None)
