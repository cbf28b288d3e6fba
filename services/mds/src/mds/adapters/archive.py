"""Package archives: written reproducibly, read with suspicion.

An archive is a plain tar: `manifest.json` first, then each file that the manifest lists, in its order, and
nothing else. Every byte is checked against the manifest while it is read, and nothing is unpacked outside the
target folder.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from chassis import errors

from mds.adapters import tar
from mds.domain import manifest_json
from mds.domain.manifest import Manifest, PackageFile
from mds.domain.packages import PackageInfo
from mds.domain.paths import MANIFEST, check_paths
from mds.domain.pickles import pickle_reason

SUFFIX = ".mdspkg"
CHUNK = 1 << 20
MAX_MANIFEST = 16 << 20
Progress = Callable[[str, int], None]


def no_progress(path: str, done: int) -> None:
    """Tells nobody."""


def write(
    target: Path, manifest: Manifest, sources: dict[str, Path], progress: Progress = no_progress
) -> PackageInfo:
    """Writes an archive whole or not at all; `sources` says where each file of the manifest lies.

    Raises FailedPrecondition if a file changed since the manifest was made, InvalidArgument for a path that
    the format cannot hold, ResourceExhausted when the disk is full.
    """
    check_paths(sources)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _new_file(target) as (file, whole):
        data = manifest_json.canonical(manifest)
        _put(file, whole, MANIFEST, len(data), iter([data]))
        for entry in manifest.files:
            _put(file, whole, entry.path, entry.size, _checked(sources[entry.path], entry, progress))
        _emit(file, whole, tar.END)
        size = file.tell()
    return PackageInfo(manifest, manifest_json.digest(manifest), size, "sha256:" + whole.hexdigest())


@contextmanager
def _new_file(target: Path) -> Iterator[tuple[BinaryIO, "hashlib._Hash"]]:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, hashlib.sha256()
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _put(file: BinaryIO, whole: "hashlib._Hash", path: str, size: int, chunks: Iterator[bytes]) -> None:
    try:
        _emit(file, whole, tar.header(tar.Entry(path, size)))
    except ValueError as error:
        raise errors.InvalidArgument(
            str(error), reason="PACKAGE_PATH_UNSAFE", metadata={"path": path}
        ) from error
    for chunk in chunks:
        _emit(file, whole, chunk)
    _emit(file, whole, bytes(tar.padding(size)))


def _emit(file: BinaryIO, whole: "hashlib._Hash", data: bytes) -> None:
    file.write(data)
    whole.update(data)


def _checked(source: Path, entry: PackageFile, progress: Progress) -> Iterator[bytes]:
    digest = hashlib.sha256()
    done = 0
    with source.open("rb") as file:
        while done < entry.size and (chunk := file.read(min(CHUNK, entry.size - done))):
            digest.update(chunk)
            done += len(chunk)
            yield chunk
            progress(entry.path, len(chunk))
        more = file.read(1)
    if done != entry.size or more or f"sha256:{digest.hexdigest()}" != entry.digest:
        raise errors.FailedPrecondition(
            f"{source} changed while the package was built; build it again",
            reason="SOURCE_CHANGED",
            metadata={"path": str(source)},
        )


def storage_error(error: OSError, path: Path) -> errors.Error:
    """Our own error for one of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return errors.ResourceExhausted(
            f"the disk that holds {path.parent} is full; nothing was stored",
            reason="DISK_FULL",
            metadata={"path": str(path.parent)},
        )
    return errors.FailedPrecondition(
        f"cannot write {path}: {error.strerror or error}",
        reason="STORAGE_FAILED",
        metadata={"path": str(path)},
    )


def read_manifest(path: Path) -> PackageInfo:
    """Reads only the manifest: quick, without checking files. Raises NotFound, InvalidArgument, DataLoss."""
    with _opened(path) as file:
        manifest = _manifest(next(tar.entries(file), None), file)
        return PackageInfo(manifest, manifest_json.digest(manifest), os.fstat(file.fileno()).st_size)


def verify(source: Path | BinaryIO, *, max_bytes: int = 0, allow_pickles: bool = True) -> PackageInfo:
    """Reads and checks all of an archive. Raises NotFound, InvalidArgument, DataLoss, FailedPrecondition.

    `max_bytes` bounds the sum of the files' sizes, 0 is no bound.
    """
    return _read(source, None, max_bytes, allow_pickles)


def extract(
    source: Path | BinaryIO, target: Path, *, max_bytes: int = 0, allow_pickles: bool = False
) -> PackageInfo:
    """Unpacks a checked archive into `target`, which must not exist and appears whole or not at all.

    Pickles are refused unless allowed, found by content as well as by what the manifest admits.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        info = _read(source, staging, max_bytes, allow_pickles)
        (staging / MANIFEST).write_bytes(manifest_json.canonical(info.manifest))
        try:
            os.rename(staging, target)
        except OSError as error:
            raise storage_error(error, target) from error
        return info
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _Hashing:
    """A file that is hashed as it is read from start to end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def _read(source: Path | BinaryIO, target: Path | None, max_bytes: int, allow_pickles: bool) -> PackageInfo:
    with _opened(source) as opened:
        file = _Hashing(opened)
        entries = tar.entries(file)  # type: ignore[arg-type]  # only read() is used
        manifest = _manifest(next(entries, None), file)  # type: ignore[arg-type]  # as above
        _check_size(manifest, max_bytes)
        check_paths(listed.path for listed in manifest.files)
        if manifest.has_pickles and not allow_pickles:
            raise pickle_error("its manifest says so")
        for listed in manifest.files:
            entry = next(entries, None)
            if entry is None or (entry.path, entry.size) != (listed.path, listed.size):
                found = "nothing" if entry is None else f"{entry.path!r} of {entry.size} bytes"
                raise _malformed(
                    f"the manifest lists {listed.path!r} of {listed.size} bytes, and the archive has {found}"
                )
            _copy(file, listed, target, allow_pickles)
        extra = next(entries, None)
        if extra is not None:
            raise _malformed(f"it holds {extra.path!r}, which the manifest does not list")
    return PackageInfo(
        manifest, manifest_json.digest(manifest), file.size, f"sha256:{file.digest.hexdigest()}"
    )


def _copy(file: _Hashing, listed: PackageFile, target: Path | None, allow_pickles: bool) -> None:
    digest = hashlib.sha256()
    left = listed.size
    with ExitStack() as stack:
        out: Any
        if target is None:
            # A file of its own is only needed to look into for pickles.
            out = stack.enter_context(tempfile.SpooledTemporaryFile(CHUNK)) if not allow_pickles else _NOWHERE
        else:
            out = stack.enter_context(_create(target / listed.path))
        while left:
            chunk = tar.read_exactly(file, min(CHUNK, left))  # type: ignore[arg-type]  # only read() is used
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
        if f"sha256:{digest.hexdigest()}" != listed.digest:
            raise errors.DataLoss(
                f"the package is corrupt: {listed.path!r} does not match its digest",
                reason="PACKAGE_CORRUPT",
                metadata={"path": listed.path},
            )
        if not allow_pickles and (reason := pickle_reason(listed.path, out)):
            raise pickle_error(f"{listed.path!r}: {reason}")


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o644), "w+b")


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


_NOWHERE = _Nowhere()


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    try:
        with ExitStack() as stack:
            if isinstance(source, Path):
                yield stack.enter_context(source.open("rb"))
            else:
                source.seek(0)
                yield source
    except FileNotFoundError as error:
        raise errors.NotFound(
            f"there is no package at {source}", reason="PACKAGE_FILE_MISSING", metadata={"path": str(source)}
        ) from error
    except tar.TarError as error:
        if error.truncated:
            raise errors.DataLoss(f"the package is corrupt: {error}", reason="PACKAGE_CORRUPT") from error
        raise _malformed(str(error)) from error
    except OSError as error:
        raise storage_error(error, source if isinstance(source, Path) else Path("upload")) from error


def _manifest(entry: tar.Entry | None, file: BinaryIO) -> Manifest:
    if entry is None or entry.path != MANIFEST:
        raise _malformed(f"its first file must be {MANIFEST}, not {entry.path if entry else 'the end'!r}")
    if entry.size > MAX_MANIFEST:
        raise _malformed(f"its manifest has {entry.size} bytes, and may have {MAX_MANIFEST}")
    try:
        return manifest_json.parse(tar.read_exactly(file, entry.size))
    except tar.TarError:
        raise
    except ValueError as error:
        raise _malformed(f"its manifest cannot be read: {error}") from error


def _check_size(manifest: Manifest, max_bytes: int) -> None:
    total = sum(file.size for file in manifest.files)
    if max_bytes and total > max_bytes:
        raise errors.ResourceExhausted(
            f"the package has {total} bytes of files, and {max_bytes} are allowed",
            reason="PACKAGE_TOO_LARGE",
            metadata={"bytes": str(total), "limit": str(max_bytes)},
        )


def _malformed(why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"this is not a Penstock package: {why}", reason="PACKAGE_MALFORMED")


def pickle_error(why: str) -> errors.FailedPrecondition:
    """The error for a package with pickles where they are not allowed."""
    return errors.FailedPrecondition(
        f"the package has a pickle, which runs code when it is read: {why}. Export the model to ONNX, "
        "safetensors or "
        "skops; if you trust where it comes from, allow pickles both when building and when serving "
        "(--allow-pickles)",
        reason="PICKLE_REFUSED",
    )
