"""The route-provider port: replicas hold leases on the endpoints they announce; watchers follow them.

Pure. Implementations: `chassis.registry.embedded` (the gateway's own `EndpointService`),
`chassis.registry.memory` (one process). Consul comes behind the same port.
"""

import enum
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Endpoint:
    """One serving replica of one version of a model.

    `instance_id` is unique among the replicas of the model: registering the same one again replaces what was
    there, whatever its version. `digest` is the package's content digest, so that a gateway can tell what
    really runs. Addresses are `host:port`. Labels describe (zone, accelerator, deployment revision) and
    carry no weights: weights belong to routes.
    """

    project: str
    model: str
    version: str
    instance_id: str
    grpc_address: str
    http_address: str | None = None
    digest: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two endpoints the same one: project, model and instance."""
        return (self.project, self.model, self.instance_id)


@dataclass(frozen=True)
class Lease:
    """The right to be routed to, until `ttl` seconds after the last renewal.

    `name` is the endpoint's resource name; `id` is a secret of the holder: only it renews and releases.
    """

    name: str
    id: str
    ttl: float


class EventKind(enum.Enum):
    """What an endpoint event says."""

    RESET = "reset"  # forget everything: a whole snapshot follows
    PUT = "put"  # this endpoint is there, new or changed
    REMOVED = "removed"  # this endpoint is gone (released or expired)
    SYNCED = "synced"  # the snapshot is complete: what follows are changes


@dataclass(frozen=True)
class EndpointEvent:
    """One step of a watch. `endpoint` is None for RESET and SYNCED; `resume_token` continues after this
    event.
    """

    kind: EventKind
    endpoint: Endpoint | None
    resume_token: str


class Registrar(Protocol):
    """Announces endpoints."""

    async def register(self, endpoint: Endpoint, ttl: float) -> Lease:
        """Announces an endpoint; registering it again replaces the entry and the lease."""
        ...

    async def renew(self, lease: Lease) -> Lease:
        """Extends a lease. Raises NotFound when it is lost (expired, replaced, provider restarted)."""
        ...

    async def deregister(self, lease: Lease) -> None:
        """Releases a lease; releasing a lost one is no error."""
        ...


class EndpointWatcher(Protocol):
    """Follows endpoints."""

    def watch(self, *, project: str | None = None, resume_token: str = "") -> AsyncIterator[EndpointEvent]:
        """RESET, a snapshot, SYNCED, then changes for as long as it is iterated.

        With a resume token that the provider still remembers, only what changed since. The iterator ends
        with an `errors.Unavailable` when the provider goes away; start again from the last token.
        """
        ...
