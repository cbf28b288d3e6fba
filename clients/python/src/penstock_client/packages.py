"""Packages: sending, finding and fetching them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.api import httpbody_pb2
from google.protobuf import empty_pb2
from penstock.mds.v1 import package_pb2, package_service_pb2

from penstock_client import names
from penstock_client.errors import DigestMismatch, InvalidArgument, NotFound, Unavailable
from penstock_client.retry import RetryPolicy, draw_jitter
from penstock_client.transport import Remote

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_SERVICE = package_service_pb2.DESCRIPTOR.services_by_name["PackageService"]
_CHUNK = 512 * 1024
_HOUR = 3600.0


@dataclass(frozen=True)
class PackageFile:
    """A package on this machine, as `mds build` makes it."""

    path: Path
    model: str
    version: str
    archive_digest: str
    size: int


class AsyncPackages:
    """`client.packages`: the packages that the package service keeps."""

    def __init__(self, service: Remote, project: str | None, retry: RetryPolicy) -> None:
        self._service = service
        self._project = project
        self._retry = retry

    async def upload(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        timeout: float = _HOUR,
    ) -> package_pb2.Package:
        """Stores a package file under `name` (`project/model:version`), by default under the model and
        version of its manifest in `project`.

        Safe to repeat after a break: a package appears whole or not at all, and one that is already stored
        with the same content is not sent again. Another content under the same name is AlreadyExists.
        """
        file = await asyncio.to_thread(read_package_file, Path(path))
        full_name = self._target(file, name, project)
        stored = await self._stored(full_name, file)
        if stored is not None:
            _report(progress, file.size, file.size)
            return stored
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._service.client_stream(
                    "UploadPackage",
                    _parts(file, full_name, labels or {}, progress),
                    package_pb2.Package,
                    service=_SERVICE,
                    timeout=timeout,
                )
            except Unavailable as error:
                pause = self._retry.delay(error, attempt, jitter=draw_jitter())
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def get(self, package: str) -> package_pb2.Package:
        """One package (`project/model:version`)."""
        request = package_service_pb2.GetPackageRequest(name=self._name(package))
        return await self._service.unary(
            "GetPackage", request, package_pb2.Package, service=_SERVICE, safe=True
        )

    async def list(self, model: str | None = None) -> Sequence[package_pb2.Package]:
        """The packages of one model (`project/model`), or of all, newest first."""
        parent = names.parse_model(model, project=self._project).resource if model else "projects/-/models/-"
        found: list[package_pb2.Package] = []
        token = ""
        while True:
            page = await self._service.unary(
                "ListPackages",
                package_service_pb2.ListPackagesRequest(parent=parent, page_token=token),
                package_service_pb2.ListPackagesResponse,
                service=_SERVICE,
                safe=True,
            )
            found += page.packages
            token = page.next_page_token
            if not token:
                return found

    async def download(
        self,
        package: str,
        destination: Path | str = ".",
        *,
        progress: Progress | None = None,
        timeout: float = _HOUR,
    ) -> Path:
        """Fetches a package into a folder or file, checks its digest, and answers where it is.

        A download that broke off goes on where it stopped. The file appears under its name only when it is
        whole and right; DigestMismatch otherwise.
        """
        meta = await self.get(package)
        target = _destination(Path(destination), meta.name)
        draft = target.with_name(f".{target.name}.{meta.archive_digest[7:19]}.part")
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._fetch(meta, draft, progress, timeout)
                break
            except Unavailable as error:
                pause = self._retry.delay(error, attempt, jitter=draw_jitter())
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        digest = await asyncio.to_thread(_file_digest, draft)
        if digest != meta.archive_digest:
            draft.unlink()
            raise DigestMismatch(
                f"{meta.name} arrived with digest {digest}, announced was {meta.archive_digest}; "
                "nothing was kept, try again",
                reason="DIGEST_MISMATCH",
            )
        draft.replace(target)
        return target

    async def delete(self, package: str, *, allow_missing: bool = False) -> None:
        """Deletes a package."""
        request = package_service_pb2.DeletePackageRequest(
            name=self._name(package), allow_missing=allow_missing
        )
        await self._service.unary("DeletePackage", request, empty_pb2.Empty, service=_SERVICE)

    async def _stored(self, full_name: str, file: PackageFile) -> package_pb2.Package | None:
        try:
            stored = await self.get(full_name)
        except NotFound:
            return None
        ready = stored.state == package_pb2.Package.STATE_READY
        return stored if ready and stored.archive_digest == file.archive_digest else None

    async def _fetch(
        self, meta: package_pb2.Package, draft: Path, progress: Progress | None, timeout: float
    ) -> None:
        done = _size(draft)
        if done >= meta.size_bytes:
            return
        request = package_service_pb2.DownloadPackageRequest(name=meta.name, offset=done, digest=meta.digest)
        with draft.open("ab") as file:
            async for part in self._service.server_stream(
                "DownloadPackage", request, httpbody_pb2.HttpBody, service=_SERVICE, timeout=timeout
            ):
                await asyncio.to_thread(file.write, part.data)
                done += len(part.data)
                _report(progress, done, meta.size_bytes)

    def _target(self, file: PackageFile, name: str | None, project: str | None) -> str:
        if name is not None:
            return names.package_name(name, project=project or self._project)
        project = project or self._project
        if not project:
            raise InvalidArgument(
                f"which project does {file.path.name} belong to? Name one, as in "
                f"digits/{file.model}:{file.version}, or set a default project",
                reason="PROJECT_MISSING",
            )
        return names.package_name(f"{project}/{file.model}:{file.version}")

    def _name(self, text: str) -> str:
        return names.package_name(text, project=self._project)


def read_package_file(path: Path) -> PackageFile:
    """What a package file is and says of itself. InvalidArgument when it is no package."""
    try:
        size = path.stat().st_size
        manifest = json.loads(_manifest(path))
        return PackageFile(path, str(manifest["model"]), str(manifest["version"]), _file_digest(path), size)
    except FileNotFoundError:
        raise InvalidArgument(f"there is no file {path}", reason="FILE_NOT_FOUND") from None
    except IsADirectoryError:
        raise InvalidArgument(
            f"{path} is a folder; build a package from it first: mds build {path}", reason="PACKAGE_INVALID"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InvalidArgument(
            f"{path} is no package that `mds build` made: {error}", reason="PACKAGE_INVALID"
        ) from error


def _manifest(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read("manifest.json")
    with tarfile.open(path) as archive:
        member = archive.extractfile("manifest.json")
        if member is None:
            raise KeyError("manifest.json is not a file")
        return member.read()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _destination(path: Path, name: str) -> Path:
    parts = name.split("/")
    return path / f"{parts[3]}-{parts[5]}.mdspkg" if path.is_dir() else path


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _parts(
    file: PackageFile, name: str, labels: Mapping[str, str], progress: Progress | None
) -> AsyncIterator[package_service_pb2.UploadPackageRequest]:
    start = package_service_pb2.UploadStart(
        name=name, archive_digest=file.archive_digest, size_bytes=file.size, labels=labels
    )
    yield package_service_pb2.UploadPackageRequest(start=start)
    done = 0
    with file.path.open("rb") as stream:
        while chunk := await asyncio.to_thread(stream.read, _CHUNK):
            yield package_service_pb2.UploadPackageRequest(chunk=chunk)
            done += len(chunk)
            _report(progress, done, file.size)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
