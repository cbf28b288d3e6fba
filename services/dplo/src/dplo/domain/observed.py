"""What is observed of a deployment at one moment, from the cluster, the route provider and the gateway."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from dplo.domain.gate import TrafficSample
from dplo.domain.traffic import Shares


class ReplicaState(enum.StrEnum):
    """What the cluster says of a replica."""

    PENDING = "pending"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CRASH_LOOPING = "crash_looping"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Replica:
    """One model server. `registered` is what the route provider says of it."""

    id: str
    version: str
    fingerprint: str
    state: ReplicaState
    ordinal: int = 0
    registered: bool = False
    message: str = ""
    grpc_address: str = ""
    http_address: str = ""
    cluster: str = ""
    restarts: int = 0
    started_at: float | None = None
    reference: str = ""

    @property
    def ready(self) -> bool:
        """Healthy and known to the gateway."""
        return self.state is ReplicaState.HEALTHY and self.registered

    @property
    def group(self) -> tuple[str, str]:
        """Replicas of one group are interchangeable."""
        return (self.version, self.fingerprint)


@dataclass(frozen=True, slots=True)
class RouteView:
    """The route at the gateway. `owner` is the deployment that it was made by, empty if by somebody else."""

    weights: tuple[tuple[str, int], ...]
    etag: str
    policy: bytes = b""
    owner: str = ""

    @property
    def shares(self) -> Shares:
        """The weights as shares."""
        return Shares.from_weights(self.weights)


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a plan is made from besides the stored state. `now` in seconds since the epoch.

    `replicas` is None when the cluster could not be asked; `gateway_error` is set when the gateway could not
    be, and then `route` says nothing. `samples` is None where nothing was measured. `cached` are digests of
    packages that lie verified on this machine.
    """

    now: float
    replicas: tuple[Replica, ...] | None = ()
    cached: frozenset[str] = frozenset()
    route: RouteView | None = None
    gateway_error: str = ""
    cluster_error: str = ""
    samples: Mapping[str, TrafficSample] | None = None
    samples_error: str = ""
    endpoints: tuple[str, ...] = field(default=())

    @property
    def gateway_known(self) -> bool:
        """Whether `route` can be relied on."""
        return not self.gateway_error

    def ready_versions(self) -> frozenset[str]:
        """Versions with at least one ready replica."""
        return frozenset(replica.version for replica in self.replicas or () if replica.ready)
