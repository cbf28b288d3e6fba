"""Packages that lie verified on this machine, by digest. What is there is whole: files appear by rename."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from chassis import errors

from dplo.adapters.packages.archive import verify

SUFFIX = ".mdspkg"
_PREFIX = "sha256:"


class PackageCache:
    """A folder with one file per digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".*.part"):
            left.unlink(missing_ok=True)

    def digests(self) -> frozenset[str]:
        """What is in the cache."""
        names = (entry.name for entry in os.scandir(self._folder))
        return frozenset(_PREFIX + n.removesuffix(SUFFIX) for n in names if n.endswith(SUFFIX))

    def path(self, digest: str) -> Path:
        """Where a package lies, or would."""
        return self._folder / (digest.removeprefix(_PREFIX) + SUFFIX)

    async def store(self, digest: str, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Writes a package as it comes, verifies it, and lets it appear."""
        with self._part() as (file, part):
            try:
                with os.fdopen(file, "wb") as target:
                    async for chunk in chunks:
                        await asyncio.to_thread(target.write, chunk)
                    await asyncio.to_thread(_sync, target.fileno(), target)
            except OSError as error:
                raise errors.ResourceExhausted(
                    f"{name} cannot be written to {self._folder}: {error.strerror}", reason="CACHE_UNWRITABLE"
                ) from error
            await asyncio.to_thread(verify, part, digest, name)
            part.replace(self.path(digest))

    @contextlib.contextmanager
    def _part(self) -> Iterator[tuple[int, Path]]:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._folder)
        part = Path(name)
        try:
            yield handle, part
        finally:
            part.unlink(missing_ok=True)


def _sync(handle: int, file: object) -> None:
    file.flush()  # type: ignore[attr-defined]  # a buffered writer
    os.fsync(handle)
