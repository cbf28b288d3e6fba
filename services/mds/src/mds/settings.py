"""Settings of the model server (`mds serve`) and of the package service (`mds run`): `MDS_...` and a YAML
file.
"""

import os
from pathlib import Path

from chassis.settings import (
    MIB,
    ChannelSettings,
    Group,
    LimitsSettings,
    ListenSettings,
    ServiceSettings,
)
from pydantic import Field
from pydantic_settings import SettingsConfigDict


def data_home() -> Path:
    """Where packages are kept unless told otherwise: `$XDG_DATA_HOME/penstock`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "penstock"


def cache_home() -> Path:
    """Where packages are unpacked unless told otherwise: `$XDG_CACHE_HOME/penstock`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


class RegistrySettings(ChannelSettings):
    """The route provider to register with: the gateway's gRPC address; empty registers nowhere.

    `ttl` in seconds is how long the gateway keeps a replica that it hears nothing of.
    """

    ttl: float = Field(default=10.0, ge=1, le=3600)
    labels: dict[str, str] = Field(default_factory=dict)


class AdvertiseSettings(Group):
    """Addresses (`host:port`) that callers reach this server at, where they are not those it listens on."""

    grpc: str = ""
    rest: str = ""


class ModelSettings(Group):
    """The operator's word over the package's. None leaves it to the package.

    `max_items` of a batch, `instances` of the model, `threads` within one run.
    """

    max_items: int | None = Field(default=None, ge=0)
    instances: int | None = Field(default=None, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1, le=1024)


class ModelServerSettings(ServiceSettings):
    """All settings of a model server.

    `project` is the project that the model belongs to for callers (`project/model`); empty answers to any and
    registers as `default`. `digest` is the content digest that the package must have. `cache` is where
    packages are unpacked. `max_package_bytes` bounds what a package may unpack to.
    """

    model_config = SettingsConfigDict(
        env_prefix="MDS_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    grpc: ListenSettings = ListenSettings(port=8530)
    rest: ListenSettings = ListenSettings(port=8531)
    package: Path = Path()
    project: str = ""
    instance_id: str = ""
    digest: str = ""
    allow_pickles: bool = False
    cache: Path | None = None
    max_package_bytes: int = Field(default=64 * 1024 * MIB, gt=0)
    registry: RegistrySettings = RegistrySettings()
    advertise: AdvertiseSettings = AdvertiseSettings()
    model: ModelSettings = ModelSettings()


class StoreSettings(Group):
    """Where packages are kept: a folder, `file:///…`, `memory://`, or empty for
    `$XDG_DATA_HOME/penstock/packages`.
    """

    url: str = ""


class PackageServiceSettings(ServiceSettings):
    """All settings of the package service. `max_package_bytes` bounds an upload and what it unpacks to.

    Calls may take an hour where the caller sets no deadline: weights are large.
    """

    model_config = SettingsConfigDict(
        env_prefix="MDS_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    grpc: ListenSettings = ListenSettings(port=8520)
    rest: ListenSettings = ListenSettings(port=8521)
    limits: LimitsSettings = LimitsSettings(default_deadline=3600.0)
    store: StoreSettings = StoreSettings()
    max_package_bytes: int = Field(default=64 * 1024 * MIB, gt=0)
    allow_pickles: bool = True
