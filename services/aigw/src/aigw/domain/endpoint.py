"""Registered endpoints and their leases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aigw.domain import names


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of one version of a model, as it registered itself. Addresses are `host:port`."""

    project: str
    model: str
    endpoint: str
    version: str
    grpc_address: str
    http_address: str = ""
    digest: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The model as callers name it, `project/model`."""
        return f"{self.project}/{self.model}"

    @property
    def name(self) -> str:
        """Resource name."""
        return names.endpoint_name(self.project, self.model, self.endpoint)


@dataclass(frozen=True, slots=True)
class Registration:
    """An endpoint under a lease.

    `ttl` in seconds; `expires` on the monotonic clock of this process; `register_time` and `drain_time` in
    seconds since the epoch, `drain_time` 0 while it does not drain.
    """

    endpoint: Endpoint
    lease_id: str
    ttl: float
    expires: float
    register_time: float
    drain_time: float = 0.0

    @property
    def draining(self) -> bool:
        """Whether it is given no new calls."""
        return self.drain_time > 0
