"""PackageSource on a directory of archives: `PROJECT/MODEL/VERSION.mdspkg`, or `MODEL-VERSION.mdspkg` as
built.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from chassis import errors

from dplo.adapters.packages.archive import read_digest
from dplo.adapters.packages.cache import SUFFIX, PackageCache
from dplo.adapters.packages.service import check_digest, not_found
from dplo.domain.names import ModelName
from dplo.domain.spec import PackagePin

_CHUNK = 1 << 20


class DirectoryPackages:
    """Archives that lie in a folder, copied into the cache and verified."""

    def __init__(self, folder: Path, cache: PackageCache) -> None:
        self._folder = folder
        self._cache = cache

    async def resolve(self, package: PackagePin) -> PackagePin:
        """See PackageSource."""
        digest = await asyncio.to_thread(read_digest, self._find(package))
        check_digest(package, digest)
        return replace(package, digest=digest)

    async def fetch(self, package: PackagePin) -> None:
        """See PackageSource."""
        if package.digest not in self._cache.digests():
            await self._cache.store(package.digest, package.name, _read(self._find(package)))

    def cached(self) -> frozenset[str]:
        """See PackageSource."""
        return self._cache.digests()

    def _find(self, package: PackagePin) -> Path:
        model = ModelName.parse(package.model)
        version = package.version
        places = (
            self._folder / model.project / model.model / f"{version}{SUFFIX}",
            self._folder / f"{model.model}-{version}{SUFFIX}",
        )
        for place in places:
            if place.is_file():
                return place
        raise not_found(package.name, f"the directory {self._folder}")


async def _read(path: Path) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk
    except OSError as error:
        raise errors.Unavailable(
            f"{path} cannot be read: {error.strerror}", reason="PACKAGE_UNREADABLE"
        ) from error
