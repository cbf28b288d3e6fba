"""What a plan can ask for. Each action is idempotent: doing it twice is doing it once."""

from dataclasses import dataclass

from dplo.domain.rollout import Phase
from dplo.domain.spec import PackagePin, VersionSpec
from dplo.domain.traffic import Shares


@dataclass(frozen=True, slots=True)
class FetchPackage:
    """Fetch a package into the cache and verify it."""

    package: PackagePin

    kind = "FETCH_PACKAGE"
    phase = Phase.RESOLVE

    @property
    def subject(self) -> str:
        """The package."""
        return self.package.name

    def describe(self) -> str:
        """For a person."""
        digest = f" ({self.package.digest[:19]}…)" if self.package.digest else ""
        return f"fetch and verify {self.package.name}{digest}"


@dataclass(frozen=True, slots=True)
class PlaceReplica:
    """Start one replica on its cluster."""

    replica: str
    ordinal: int
    version: VersionSpec

    kind = "PLACE_REPLICA"
    phase = Phase.PLACE

    @property
    def subject(self) -> str:
        """The replica."""
        return self.replica

    def describe(self) -> str:
        """For a person."""
        return f"start replica {self.replica} of version {self.version.version} on {self.version.cluster}"


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Make the gateway divide traffic so; `etag` guards against a change since it was observed ("": none
    yet).
    """

    shares: Shares
    policy: bytes
    etag: str
    percent: int

    kind = "SHIFT_TRAFFIC"
    phase = Phase.SHIFT

    @property
    def subject(self) -> str:
        """The route."""
        return "route"

    def describe(self) -> str:
        """For a person."""
        return f"route {self.shares.describe()}"


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Let one replica finish what it has begun, for at most `drain_timeout` seconds, and end."""

    replica: str
    version: str
    drain_timeout: float

    kind = "STOP_REPLICA"
    phase = Phase.DRAIN

    @property
    def subject(self) -> str:
        """The replica."""
        return self.replica

    def describe(self) -> str:
        """For a person."""
        return f"drain and stop replica {self.replica} of version {self.version}"


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Take the route away from the gateway."""

    etag: str

    kind = "DELETE_ROUTE"
    phase = Phase.SHIFT

    @property
    def subject(self) -> str:
        """The route."""
        return "route"

    def describe(self) -> str:
        """For a person."""
        return "remove the route"


Action = FetchPackage | PlaceReplica | PutRoute | StopReplica | DeleteRoute
