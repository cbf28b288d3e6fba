"""The settings of the deployment service: from `DPLO_...` variables and a YAML file, checked at start."""

import re
from pathlib import Path
from typing import Literal

from chassis.settings import MIB, ChannelSettings, Group, ListenSettings, ServiceSettings
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict


class StoreSettings(Group):
    """Where deployments, their history and operations are kept: the URL of a database."""

    url: str = "sqlite+aiosqlite:///.penstock/dplo/dplo.db"

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if not url.startswith("sqlite+aiosqlite:///"):
            raise ValueError(
                f"{url.partition(':')[0]!r} is no database that this version can use; "
                "write sqlite+aiosqlite:///PATH"
            )
        return url

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.url.removeprefix("sqlite+aiosqlite:///"))


class PackagesSettings(ChannelSettings):
    """Where packages come from: the package service at `address`, or archives in `directory`."""

    backend: Literal["service", "directory"] = "service"
    address: str = "127.0.0.1:8520"
    directory: Path = Path("packages")


class LocalSettings(Group):
    """The `local` cluster. Times in seconds, sizes in bytes.

    `command` is what replicas are started with, before `serve PACKAGE`; empty: this Python with `-m mds`.
    `ports` is the range they listen in, `20000-20999`; empty: any free ports. `registry_address` is where
    replicas register; empty: at the gateway. With `stop_on_exit` replicas end when the service is stopped on
    purpose; without, they go on serving and the next start takes them over, so that the service can be
    updated under load.
    """

    state_dir: Path = Path(".penstock/dplo/local")
    command: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    ports: str = ""
    registry_address: str = ""
    max_replicas: int = Field(default=64, ge=1)
    stop_on_exit: bool = False
    log_bytes: int = Field(default=10 * MIB, ge=4096)
    logs_kept: int = Field(default=2, ge=1, le=20)
    probe_interval: float = Field(default=1.0, gt=0)
    unhealthy_limit: float = Field(default=60.0, gt=0)
    restart_first_delay: float = Field(default=0.5, gt=0)
    restart_largest_delay: float = Field(default=60.0, gt=0)
    stable_after: float = Field(default=10.0, gt=0)
    looping_after: int = Field(default=3, ge=1)

    @field_validator("ports")
    @classmethod
    def _range(cls, ports: str) -> str:
        match = re.fullmatch(r"(\d+)-(\d+)", ports)
        if ports and (match is None or not 0 < int(match[1]) < int(match[2]) < 65536):
            raise ValueError(f"{ports!r} is no range of ports; write FIRST-LAST, as 20000-20999")
        return ports

    @property
    def port_range(self) -> range | None:
        """The range, or None for any free ports."""
        if not self.ports:
            return None
        first, _, last = self.ports.partition("-")
        return range(int(first), int(last) + 1)


class ReconcileSettings(Group):
    """How often deployments are looked at, in seconds: while a rollout goes on, and while nothing changes."""

    active_interval: float = Field(default=0.2, gt=0)
    idle_interval: float = Field(default=5.0, gt=0)
    first_retry: float = Field(default=0.2, gt=0)
    largest_retry: float = Field(default=30.0, gt=0)


class DploSettings(ServiceSettings):
    """All settings of the deployment service. `gateway` is AIGW, which routes are told to."""

    model_config = SettingsConfigDict(
        env_prefix="DPLO_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    grpc: ListenSettings = ListenSettings(port=8510)
    rest: ListenSettings = ListenSettings(port=8511)
    store: StoreSettings = StoreSettings()
    packages: PackagesSettings = PackagesSettings()
    gateway: ChannelSettings = ChannelSettings(address="127.0.0.1:8500")
    local: LocalSettings = LocalSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
