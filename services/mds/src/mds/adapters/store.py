"""Packages in an object store: a folder or memory now, S3 through the same library later.

A package is two objects: `content/{uid}.mdspkg`, and `packages/{project}/{model}/{version}.json`, its record.
The record is created last and only if there is none, which is one atomic step in every store; it is deleted
first. So a package is there exactly as long as its record is, whatever crashes when. What a crash leaves of
content is swept.
"""

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from chassis import errors
from obstore.store import LocalStore, MemoryStore

from mds.domain.names import PackageName
from mds.domain.packages import StoredPackage
from mds.domain.records import read_record, write_record

CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ORPHAN_AGE = timedelta(hours=24)


class ObjectPackageStore:
    """`mds.app.ports.PackageStore` over obstore."""

    def __init__(self, store: Any, spool_folder: Path | None) -> None:
        self._store = store
        self._spool_folder = spool_folder

    def spool(self) -> AbstractContextManager[BinaryIO]:
        """A temporary file without a name, on the store's own disk where it has one."""
        return tempfile.TemporaryFile(dir=self._spool_folder)

    async def create(self, package: StoredPackage, archive: BinaryIO) -> StoredPackage:
        """See the port."""
        content = _content(package)
        archive.seek(0)
        try:
            await obstore.put_async(self._store, content, archive)
            await obstore.put_async(self._store, _record(package.name), write_record(package), mode="create")
        except BaseException as error:
            with suppress(Exception):
                await asyncio.shield(obstore.delete_async(self._store, content))
            if isinstance(error, obstore.exceptions.AlreadyExistsError):
                raise errors.AlreadyExists(f"{package.name} exists", reason="PACKAGE_EXISTS") from error
            if isinstance(error, obstore.exceptions.BaseError | OSError):
                raise _store_error(error) from error
            raise
        return package

    async def get(self, name: str) -> StoredPackage:
        """See the port."""
        return await self._read_record(_record(PackageName.parse(name)), name)

    async def list(self, project: str | None, model: str | None) -> Sequence[StoredPackage]:
        """See the port. Records are read a few at a time."""
        prefix = "packages/" if project is None else f"packages/{project}/"
        if project is not None and model is not None:
            prefix += f"{model}/"
        paths: list[str] = []
        try:
            async for batch in obstore.list(self._store, prefix):
                paths.extend(item["path"] for item in batch)
        except obstore.exceptions.BaseError as error:
            raise _store_error(error) from error
        wanted = [path for path in paths if model is None or path.split("/")[2] == model]
        gate = asyncio.Semaphore(32)

        async def read(path: str) -> StoredPackage | None:
            async with gate:
                try:
                    return await self._read_record(path, path)
                except errors.NotFound:
                    return None  # deleted since it was listed

        found = await asyncio.gather(*(read(path) for path in wanted))
        return [package for package in found if package is not None]

    async def read(self, package: StoredPackage, offset: int) -> AsyncIterator[bytes]:
        """See the port."""
        if offset >= package.size:
            return
        sent = offset
        try:
            options: Any = {"range": {"offset": offset}} if offset else None
            result = await obstore.get_async(self._store, _content(package), options=options)
            async for chunk in result.stream(min_chunk_size=CHUNK):
                sent += len(chunk)
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise _lost(package) from error
        except obstore.exceptions.BaseError as error:
            raise _store_error(error) from error
        if sent != package.size:
            raise _lost(package)

    async def delete(self, package: StoredPackage) -> None:
        """See the port."""
        for path in (_record(package.name), _content(package)):
            try:
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                continue
            except obstore.exceptions.BaseError as error:
                raise _store_error(error) from error

    async def sweep(self, now: datetime) -> int:
        """Deletes content that no record names and that is a day old: what crashed uploads left."""
        kept = {_content(package) for package in await self.list(None, None)}
        swept = 0
        async for batch in obstore.list(self._store, "content/"):
            for item in batch:
                if item["path"] not in kept and now - item["last_modified"] > _ORPHAN_AGE:
                    with suppress(FileNotFoundError):
                        await obstore.delete_async(self._store, item["path"])
                    swept += 1
        return swept

    async def _read_record(self, path: str, name: str) -> StoredPackage:
        try:
            result = await obstore.get_async(self._store, path)
            return read_record(bytes(await result.bytes_async()))
        except FileNotFoundError as error:
            raise errors.NotFound(
                f"there is no package {name}", reason="PACKAGE_UNKNOWN", metadata={"package": name}
            ) from error
        except ValueError as error:
            raise errors.DataLoss(
                f"the record of {name} is damaged: {error}",
                reason="PACKAGE_RECORD_CORRUPT",
                metadata={"package": name},
            ) from error
        except obstore.exceptions.BaseError as error:
            raise _store_error(error) from error


def open_store(url: str, default: Path) -> ObjectPackageStore:
    """The store of a setting: a folder, `file:///…` or `memory://`. Raises InvalidArgument for others."""
    if url == "memory://":
        return ObjectPackageStore(MemoryStore(), None)
    parts = urlsplit(url)
    if parts.scheme not in ("", "file") or (parts.scheme == "file" and parts.netloc not in ("", "localhost")):
        raise errors.InvalidArgument(
            f"store.url {url!r} is no store that this version of Penstock knows: give a folder, "
            "file:///… or memory://",
            reason="STORE_UNKNOWN",
        )
    folder = Path(unquote(parts.path) if parts.scheme else url).expanduser() if url else default
    spool = folder / "spool"
    try:
        spool.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=spool):
            pass
    except OSError as error:
        raise errors.FailedPrecondition(
            f"cannot keep packages in {folder}: {error.strerror or error}", reason="STORE_UNUSABLE"
        ) from error
    return ObjectPackageStore(LocalStore(prefix=folder.absolute()), spool)


def _record(name: PackageName) -> str:
    return f"packages/{name.project}/{name.model}/{name.version}.json"


def _content(package: StoredPackage) -> str:
    return f"content/{package.uid}.mdspkg"


def _lost(package: StoredPackage) -> errors.DataLoss:
    return errors.DataLoss(
        f"the content of {package.name} is gone or damaged in the store; delete the package and "
        "upload it again",
        reason="PACKAGE_CONTENT_LOST",
        metadata={"package": str(package.name)},
    )


def spool_error(error: OSError) -> errors.Error:
    """Our own error for one of the temporary file of an upload."""
    return _store_error(error)


def _store_error(error: BaseException) -> errors.Error:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if getattr(error, "errno", None) in _FULL or any(f"os error {n}" in str(error) for n in _FULL):
        return errors.ResourceExhausted(
            "the package store is full; nothing was stored. Delete packages or give it more room",
            reason="STORE_FULL",
        )
    return errors.Unavailable(f"the package store failed: {text}", reason="STORE_FAILED")


def utc_now() -> datetime:
    """The time of new records."""
    return datetime.now(UTC)
