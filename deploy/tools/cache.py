"""Where tools live: one folder a version under the user's cache, complete or absent, never half."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_RECORD = "installed.json"


class Cache:
    """Folders `NAME/VERSION` under one root; a version is present once its record, written last, is."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_user(cls, environ: Mapping[str, str] = os.environ) -> Cache:
        """Return `$XDG_CACHE_HOME/penstock/tools`, by default below `~/.cache`: all clones share it."""
        base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(base) / "penstock" / "tools")

    def folder(self, name: str, version: str) -> Path:
        """Return the home of one version of one tool, present or not."""
        return self.root / name / version

    def record(self, name: str, version: str) -> dict[str, object]:
        """Return what was written down when this version was installed; empty when it is not installed."""
        try:
            content = json.loads((self.folder(name, version) / _RECORD).read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def has(self, name: str, version: str, fingerprint: str) -> bool:
        """Tell whether this version is here complete and was made from the inputs with this fingerprint."""
        return self.record(name, version).get("fingerprint") == fingerprint

    @contextmanager
    def replacing(self, name: str, version: str, fingerprint: str) -> Iterator[Path]:
        """Give an empty folder to fill; it becomes the tool's home when the block ends without error."""
        target = self.folder(name, version)
        staging = target.with_name(f".{version}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        (staging / _RECORD).write_text(json.dumps({"fingerprint": fingerprint}, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the installation of one tool: two clones that build at once wait for each other."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
