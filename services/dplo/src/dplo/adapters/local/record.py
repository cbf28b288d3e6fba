"""What is kept on disk of each replica, so that whoever comes after a crash knows what to look after."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Exit:
    """One end that nobody asked for. `code` is None if it is not known (the replica was not our child)."""

    at: float
    lasted: float
    code: int | None


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica as it is meant to be, and how it fared. Times in seconds since the epoch."""

    replica: str
    deployment: str
    version: str
    fingerprint: str
    ordinal: int
    cluster: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    drain_timeout: float
    cpu: float = 0.0
    memory_bytes: int = 0
    accelerators: tuple[int, ...] = ()
    started_at: float | None = None
    next_start_at: float = 0.0
    restarts: int = 0
    failures: int = 0
    last_exit: Exit | None = None
    stop_requested_at: float | None = None
    term_sent: bool = False

    @property
    def stopping(self) -> bool:
        """Whether it is on its way out."""
        return self.stop_requested_at is not None


_RECORD = TypeAdapter(ReplicaRecord)


@dataclass(frozen=True, slots=True)
class ReplicaFiles:
    """The files of one replica."""

    folder: Path
    log: Path

    @property
    def record(self) -> Path:
        """What it is meant to be."""
        return self.folder / "replica.json"

    @property
    def process(self) -> Path:
        """Which process it is; written by the launcher."""
        return self.folder / "process.json"

    @property
    def lock(self) -> Path:
        """Held by the process as long as it lives."""
        return self.folder / "lock"

    @property
    def addresses(self) -> Path:
        """Where it listens; written by the model server once it serves."""
        return self.folder / "addresses.json"


def write_record(files: ReplicaFiles, record: ReplicaRecord) -> ReplicaRecord:
    """Writes whole or not at all. Only the owner may read it: environments hold secrets."""
    files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = files.record.with_suffix(".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(_RECORD.dump_json(record))
        file.flush()
        os.fsync(file.fileno())
    part.replace(files.record)
    return record


def read_record(files: ReplicaFiles) -> ReplicaRecord | None:
    """What was written; None if the folder is a leftover from before its first write."""
    try:
        return _RECORD.validate_json(files.record.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


__all__ = ["Exit", "ReplicaFiles", "ReplicaRecord", "read_record", "replace", "write_record"]
