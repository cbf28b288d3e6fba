"""Unpacked packages: one folder per content digest, shared by all servers of a machine and checked before
each use.
"""

import hashlib
import os
import shutil
from pathlib import Path

from chassis import errors

from mds.adapters import archive
from mds.domain import manifest_json
from mds.domain.manifest import Manifest
from mds.domain.packages import PackageInfo
from mds.domain.paths import MANIFEST


def unpack(
    package: Path, cache: Path, *, expected_digest: str, max_bytes: int, allow_pickles: bool
) -> tuple[PackageInfo, Path]:
    """The package and the folder it is unpacked in. Raises FailedPrecondition if it is not the expected one.

    A folder from before is used if every file in it still has its digest, else made anew.
    """
    info = archive.read_manifest(package)
    if expected_digest and info.digest != expected_digest:
        raise errors.FailedPrecondition(
            f"{package} has the digest {info.digest}, expected was {expected_digest}",
            reason="DIGEST_UNEXPECTED",
            metadata={"digest": info.digest, "expected": expected_digest},
        )
    if info.manifest.has_pickles and not allow_pickles:
        raise archive.pickle_error("its manifest says so")
    folder = cache / info.digest.removeprefix("sha256:")
    if _is_intact(folder, info.manifest):
        return info, folder
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    stale = cache / f".stale-{os.getpid()}-{folder.name}"
    if folder.exists():
        os.rename(folder, stale)
        shutil.rmtree(stale, ignore_errors=True)
    try:
        archive.extract(package, folder, max_bytes=max_bytes, allow_pickles=allow_pickles)
    except errors.FailedPrecondition:
        # Another server unpacked the same package in the meantime: then its folder is as good.
        if not _is_intact(folder, info.manifest):
            raise
    return info, folder


def _is_intact(folder: Path, manifest: Manifest) -> bool:
    try:
        if (folder / MANIFEST).read_bytes() != manifest_json.canonical(manifest):
            return False
        for file in manifest.files:
            with (folder / file.path).open("rb") as content:
                if "sha256:" + hashlib.file_digest(content, "sha256").hexdigest() != file.digest:
                    return False
    except OSError:
        return False
    return True
