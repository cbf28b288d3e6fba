"""The gateway's settings: from `AIGW_...` variables and a YAML file, checked once at start."""

from pathlib import Path
from typing import Literal

from chassis.settings import MIB, ChannelSettings, Group, ListenSettings, ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from aigw.domain.route import DEFAULT_POLICY


class StoreSettings(Group):
    """Where routes and endpoints are kept. `memory` forgets them at the end of the process."""

    backend: Literal["sqlite", "memory"] = "sqlite"
    path: Path = Path(".penstock/aigw/aigw.db")


class RoutingSettings(Group):
    """Defaults of a route's policy. Seconds and percent.

    `retirement` is how long connections of a replica that left stay open for the calls they still carry.
    """

    timeout: float = Field(default=DEFAULT_POLICY.timeout, gt=0)
    max_attempts: int = Field(default=DEFAULT_POLICY.retry.max_attempts, ge=1, le=10)
    per_try_timeout: float = Field(default=DEFAULT_POLICY.retry.per_try_timeout, ge=0)
    retry_budget_percent: float = Field(default=DEFAULT_POLICY.retry.budget_percent, ge=0, le=100)
    retry_budget_min_per_second: float = Field(default=DEFAULT_POLICY.retry.budget_min_per_second, ge=0)
    consecutive_failures: int = Field(default=DEFAULT_POLICY.ejection.consecutive_failures, ge=1)
    base_ejection: float = Field(default=DEFAULT_POLICY.ejection.base_ejection, gt=0)
    max_ejection: float = Field(default=DEFAULT_POLICY.ejection.max_ejection, gt=0)
    retirement: float = Field(default=300.0, ge=0)


class RegistrySettings(Group):
    """The embedded endpoint registry. `history` is how many changes a watch can resume over."""

    history: int = Field(default=4096, ge=1)


class AccessLogSettings(Group):
    """The access log. `sample_ratio` is the share of successful calls that is logged, failed ones always
    are.

    `buffer` is in lines; beyond it lines are dropped and counted. The file is rotated at `max_bytes` (0:
    never) and `backups` old ones are kept. `flush_interval` in seconds.
    """

    sink: Literal["file", "stdout", "off"] = "file"
    path: Path = Path(".penstock/aigw/access.log")
    max_bytes: int = Field(default=64 * MIB, ge=0)
    backups: int = Field(default=5, ge=0, le=100)
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    buffer: int = Field(default=65_536, ge=1)
    flush_interval: float = Field(default=0.2, gt=0)


class TrafficSettings(Group):
    """The recent traffic that QueryTraffic answers from, in seconds."""

    resolution: float = Field(default=1.0, ge=0.1)
    window: float = Field(default=1800.0, ge=1)


class AigwSettings(ServiceSettings):
    """All settings of the gateway. `upstream` is how replicas are reached; its address is not used."""

    model_config = SettingsConfigDict(
        env_prefix="AIGW_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    grpc: ListenSettings = ListenSettings(port=8500)
    rest: ListenSettings = ListenSettings(port=8501)
    upstream: ChannelSettings = ChannelSettings()
    store: StoreSettings = StoreSettings()
    routing: RoutingSettings = RoutingSettings()
    registry: RegistrySettings = RegistrySettings()
    access_log: AccessLogSettings = AccessLogSettings()
    traffic: TrafficSettings = TrafficSettings()
