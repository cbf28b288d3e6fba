"""Use cases of the package service: packages go in checked, stay as they are, and come out whole."""

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, TypeVar

from chassis import errors

from mds.app.ports import PackageStore
from mds.domain.names import PackageName
from mds.domain.packages import PackageInfo, StoredPackage

T = TypeVar("T")
DEFAULT_PAGE = 50


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What an upload says first."""

    name: PackageName
    archive_digest: str = ""
    size: int = 0
    labels: Mapping[str, str] | None = None
    creator: str = ""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """All packages of a model, in short."""

    project: str
    model: str
    package_count: int
    latest: StoredPackage
    first_time: datetime


class Packages:
    """The use cases over a store.

    `spool` opens a nameless temporary file, which is gone if the process is; `verify` reads and checks an
    archive.
    """

    def __init__(
        self,
        store: PackageStore,
        *,
        spool: Callable[[], AbstractContextManager[BinaryIO]],
        verify: Callable[[BinaryIO], PackageInfo],
        guard: Callable[[OSError], errors.Error],
        max_bytes: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._store = store
        self._spool = spool
        self._verify = verify
        self._guard = guard
        self._max_bytes = max_bytes
        self._now = now
        self._new_id = new_id

    async def upload(self, request: UploadRequest, chunks: AsyncIterator[bytes]) -> StoredPackage:
        """Stores a package, whole or not at all; the same content again is answered with what is stored.

        Raises AlreadyExists for another content, DataLoss or InvalidArgument for a corrupt one,
        ResourceExhausted for one too large or a full disk.
        """
        if request.size > self._max_bytes:
            raise self._too_large(request.size)
        try:
            with self._spool() as file:
                received, digest = await self._receive(file, chunks)
                self._compare(request, received, digest)
                info = await asyncio.to_thread(self._verify, file)
                self._belongs(request.name, info)
                return await self._store_once(request, info, file)
        except OSError as error:
            raise self._guard(error) from error

    async def _receive(self, file: BinaryIO, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
        digest = hashlib.sha256()
        received = 0
        async for chunk in chunks:
            received += len(chunk)
            if received > self._max_bytes:
                raise self._too_large(received)
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(file.flush)
        return received, f"sha256:{digest.hexdigest()}"

    def _compare(self, request: UploadRequest, received: int, digest: str) -> None:
        if request.size and received != request.size:
            raise errors.DataLoss(
                f"the upload has {received} bytes, {request.size} were announced",
                reason="UPLOAD_INCOMPLETE",
                metadata={"received": str(received), "announced": str(request.size)},
            )
        if request.archive_digest and digest != request.archive_digest:
            raise errors.DataLoss(
                f"the upload has the digest {digest}, {request.archive_digest} was announced: it was damaged",
                reason="UPLOAD_CORRUPT",
                metadata={"received": digest, "announced": request.archive_digest},
            )

    def _belongs(self, name: PackageName, info: PackageInfo) -> None:
        manifest = info.manifest
        if (manifest.model, manifest.version) != (name.model, name.version):
            why = f"the package is {manifest.model} {manifest.version}, not {name.model} {name.version}"
            raise errors.InvalidArgument(
                f"{why}: upload it as "
                f"projects/{name.project}/models/{manifest.model}/packages/{manifest.version}",
                reason="PACKAGE_NAME_MISMATCH",
                violations=[errors.FieldViolation("start.name", why)],
            )

    async def _store_once(self, request: UploadRequest, info: PackageInfo, file: BinaryIO) -> StoredPackage:
        existing = await self._existing(request.name)
        if existing is None:
            package = StoredPackage(
                name=request.name,
                uid=self._new_id(),
                manifest=info.manifest,
                digest=info.digest,
                size=info.size,
                archive_digest=info.archive_digest,
                create_time=self._now(),
                creator=request.creator,
                labels=dict(request.labels or {}),
            )
            try:
                return await self._store.create(package, file)
            except errors.AlreadyExists:  # another upload was quicker
                existing = await self._store.get(str(request.name))
        if existing.digest != info.digest:
            raise errors.AlreadyExists(
                f"{request.name} exists with another content: stored is {existing.digest}, uploaded "
                f"was {info.digest}. "
                "Packages never change: upload it as a new version",
                reason="PACKAGE_EXISTS",
                metadata={
                    "package": str(request.name),
                    "stored": existing.digest,
                    "uploaded": info.digest,
                },
            )
        return existing

    async def _existing(self, name: PackageName) -> StoredPackage | None:
        try:
            return await self._store.get(str(name))
        except errors.NotFound:
            return None

    async def get(self, name: PackageName) -> StoredPackage:
        """A package. Raises NotFound, DataLoss."""
        return await self._store.get(str(name))

    async def list(
        self, project: str | None, model: str | None, *, page_size: int, page_token: str
    ) -> tuple[Sequence[StoredPackage], str]:
        """A page of packages, newest first, and the token of the next. Raises InvalidArgument for a wrong
        token.
        """
        packages = await self._store.list(project, model)
        ordered = sorted(packages, key=_newest_first)
        return _page(ordered, _newest_first, page_size, page_token, f"{project}/{model}")

    async def models(
        self, project: str | None, *, page_size: int, page_token: str
    ) -> tuple[Sequence[ModelSummary], str]:
        """A page of models by name, and the token of the next."""
        grouped: dict[tuple[str, str], list[StoredPackage]] = {}
        for package in await self._store.list(project, None):
            grouped.setdefault((package.name.project, package.name.model), []).append(package)
        summaries = [
            ModelSummary(
                project=key[0],
                model=key[1],
                package_count=len(group),
                latest=min(group, key=_newest_first),
                first_time=min(package.create_time for package in group),
            )
            for key, group in sorted(grouped.items())
        ]
        return _page(summaries, lambda one: (one.project, one.model), page_size, page_token, f"{project}")

    async def download(self, name: PackageName, *, offset: int, digest: str) -> AsyncIterator[bytes]:
        """The archive from an offset on. Raises OutOfRange, FailedPrecondition for another digest,
        DataLoss.
        """
        package = await self._store.get(str(name))
        if digest and digest != package.digest:
            raise errors.FailedPrecondition(
                f"{name} has the digest {package.digest}, expected was {digest}",
                reason="DIGEST_UNEXPECTED",
                metadata={"digest": package.digest, "expected": digest},
            )
        if offset > package.size:
            raise errors.OutOfRange(
                f"the offset {offset} is past the end of the archive, which has {package.size} bytes",
                reason="OFFSET_PAST_END",
                metadata={"offset": str(offset), "size": str(package.size)},
            )
        return self._store.read(package, offset)

    async def delete(self, name: PackageName, *, etag: str = "", allow_missing: bool = False) -> None:
        """Deletes a package. Raises NotFound, Aborted if it is not the one that the etag means."""
        try:
            package = await self._store.get(str(name))
        except errors.NotFound:
            if allow_missing:
                return
            raise
        if etag and etag != package.etag:
            raise errors.Aborted(
                f"{name} is not the one that was meant: its etag is {package.etag}",
                reason="ETAG_MISMATCH",
                metadata={"etag": package.etag},
            )
        await self._store.delete(package)

    def _too_large(self, size: int) -> errors.ResourceExhausted:
        return errors.ResourceExhausted(
            f"the package has {size} bytes or more, and {self._max_bytes} are allowed (max_package_bytes)",
            reason="PACKAGE_TOO_LARGE",
            metadata={"limit": str(self._max_bytes)},
        )


def _newest_first(package: StoredPackage) -> tuple[float, str]:
    return (-package.create_time.timestamp(), str(package.name))


def _page(
    ordered: Sequence[T], key: Callable[[T], Any], page_size: int, token: str, scope: str
) -> tuple[Sequence[T], str]:
    """Elements after the one that the token names, and the token of the last of them if more follow."""
    size = page_size or DEFAULT_PAGE
    after = _read_token(token, scope)
    rest = [item for item in ordered if after is None or list(key(item)) > after]
    page = rest[:size]
    more = _write_token(key(page[-1]), scope) if len(rest) > size else ""
    return page, more


def _write_token(key: Any, scope: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([scope, list(key)]).encode()).decode()


def _read_token(token: str, scope: str) -> list[Any] | None:
    if not token:
        return None
    try:
        told, key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError):
        told, key = None, None
    if told != scope or not isinstance(key, list) or len(key) != 2 or not isinstance(key[1], str):
        raise errors.InvalidArgument(
            "the page token is not one of this list; begin again without one",
            reason="PAGE_TOKEN_INVALID",
            violations=[errors.FieldViolation("page_token", "is not one of this list")],
        )
    return key
