"""Checks package archives against their digest, as their contract says (penstock/mds/v1/package.proto).

An archive is a tar: `manifest.json`, whose SHA-256 is the digest of the package, then each file that it lists
with its own SHA-256, and nothing else. Nothing is unpacked here.
"""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from chassis import errors

MANIFEST = "manifest.json"
_MAX_MANIFEST = 16 << 20
_CHUNK = 1 << 20


def read_digest(path: Path) -> str:
    """The content digest that an archive claims: that of its manifest. Raises DataLoss."""
    with _opened(path) as archive:
        return _sha256(_manifest(archive, path))


def verify(path: Path, digest: str, name: str) -> None:
    """Reads an archive to its end. Raises DataLoss if it is damaged or another content."""
    with _opened(path) as archive:
        content = _manifest(archive, path)
        actual = _sha256(content)
        if actual != digest:
            raise errors.DataLoss(
                f"the content of {name} has the digest {actual}, asked for was {digest}",
                reason="PACKAGE_DIGEST_MISMATCH",
                metadata={"package": name, "digest": actual, "expected": digest},
            )
        try:
            listed = {entry["path"]: entry for entry in json.loads(content).get("files", [])}
            _verify_files(archive, listed, name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise corrupt(name, f"its manifest cannot be read: {error}") from error
        except (tarfile.TarError, OSError, EOFError) as error:
            raise corrupt(name, f"its archive cannot be read: {error}") from error


def corrupt(name: str, why: str) -> errors.DataLoss:
    """The error of a damaged package."""
    return errors.DataLoss(
        f"{name} is corrupt: {why}; build and upload it again",
        reason="PACKAGE_CORRUPT",
        metadata={"package": name},
    )


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, mode="r:")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise corrupt(path.name, f"it is not a package archive: {error}") from error


def _manifest(archive: tarfile.TarFile, path: Path) -> bytes:
    try:
        member = archive.next()
        if member is None or member.name != MANIFEST or not member.isreg() or member.size > _MAX_MANIFEST:
            raise corrupt(path.name, f"it does not begin with {MANIFEST}")
        file = archive.extractfile(member)
        return file.read() if file is not None else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise corrupt(path.name, f"its archive cannot be read: {error}") from error


def _verify_files(archive: tarfile.TarFile, listed: dict[str, Any], name: str) -> None:
    seen: set[str] = set()
    while (member := archive.next()) is not None:
        entry = listed.get(member.name)
        if entry is None or not member.isreg() or member.name in seen:
            raise corrupt(name, f"it holds '{member.name}', which its manifest does not list")
        seen.add(member.name)
        if _file_digest(archive, member) != entry["digest"]:
            raise corrupt(name, f"the content of '{member.name}' is not what its manifest says")
    missing = sorted(set(listed) - seen)
    if missing:
        raise corrupt(name, f"'{missing[0]}' is missing")


def _file_digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    file = archive.extractfile(member)
    while file is not None and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
