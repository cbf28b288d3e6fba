"""PackageSource on the package service of MDS."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from chassis import errors
from google.api import httpbody_pb2
from penstock.mds.v1 import package_pb2, package_service_pb2

from dplo.adapters.packages.archive import corrupt
from dplo.adapters.packages.cache import PackageCache
from dplo.adapters.rpc import Remote
from dplo.domain.spec import PackagePin

_PACKAGES = "penstock.mds.v1.PackageService"


class ServicePackages:
    """Finds packages by name, fetches them once and verifies them."""

    def __init__(self, remote: Remote, cache: PackageCache, *, timeout: float = 600.0) -> None:
        self._remote = remote
        self._cache = cache
        self._timeout = timeout

    async def resolve(self, package: PackagePin) -> PackagePin:
        """See PackageSource."""
        found = await self._get(package)
        return replace(package, digest=found.digest)

    async def fetch(self, package: PackagePin) -> None:
        """See PackageSource."""
        if package.digest in self._cache.digests():
            return
        found = await self._get(package)
        await self._cache.store(package.digest, package.name, self._content(package, found.archive_digest))

    def cached(self) -> frozenset[str]:
        """See PackageSource."""
        return self._cache.digests()

    async def _get(self, package: PackagePin) -> package_pb2.Package:
        request = package_service_pb2.GetPackageRequest(name=package.name)
        try:
            found = await self._remote.unary(f"{_PACKAGES}/GetPackage", request, package_pb2.Package)
        except errors.NotFound as error:
            raise not_found(package.name, "the package service") from error
        check_digest(package, found.digest)
        if found.state == package_pb2.Package.STATE_CORRUPT:
            raise corrupt(package.name, "the package service says so")
        return found

    async def _content(self, package: PackagePin, archive_digest: str) -> AsyncIterator[bytes]:
        """The archive as it comes; the check of the transfer at its end."""
        digest = hashlib.sha256()
        request = package_service_pb2.DownloadPackageRequest(name=package.name, digest=package.digest)
        parts = self._remote.stream(
            f"{_PACKAGES}/DownloadPackage", request, httpbody_pb2.HttpBody, self._timeout
        )
        async for part in parts:
            digest.update(part.data)
            yield part.data
        actual = f"sha256:{digest.hexdigest()}"
        if archive_digest and actual != archive_digest:
            raise corrupt(package.name, f"its archive came with the digest {actual}, not {archive_digest}")


def not_found(name: str, where: str) -> errors.NotFound:
    """The error of a package that nobody has."""
    return errors.NotFound(
        f"{where} has no package '{name}'; upload it first, for example with penstock package push",
        reason="PACKAGE_NOT_FOUND",
        metadata={"package": name},
    )


def check_digest(package: PackagePin, actual: str) -> None:
    """Raises FailedPrecondition if a declared digest is not the package's."""
    if package.digest and package.digest != actual:
        raise errors.FailedPrecondition(
            f"'{package.name}' has the digest {actual}, declared is {package.digest}",
            reason="PACKAGE_DIGEST_MISMATCH",
            metadata={"package": package.name, "digest": actual, "expected": package.digest},
        )
