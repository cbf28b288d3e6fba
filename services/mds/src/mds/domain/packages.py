"""A package as it is read from an archive, and as the package service keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mds.domain.manifest import Manifest
from mds.domain.names import PackageName


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """A package as read: its manifest, content digest, and size and SHA-256 of the archive.

    `archive_digest` is empty where only the manifest was read.
    """

    manifest: Manifest
    digest: str
    size: int
    archive_digest: str = ""


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """A stored package: its name, what it says of itself, and how it came here. Times are in UTC."""

    name: PackageName
    uid: str
    manifest: Manifest
    digest: str
    size: int
    archive_digest: str
    create_time: datetime
    creator: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """Changes with each change; packages never change, so it is their identity."""
        return f'"{self.uid}"'
