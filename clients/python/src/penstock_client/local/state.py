"""What `penstock up` remembers of a running stack: one JSON file in the state folder, replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "stack.json"
_FORMAT = 1


@dataclass(frozen=True)
class ServiceState:
    """One service's process and addresses."""

    pid: int
    started: float
    """Seconds since the epoch at which the process began; tells it from a later process with the same
    number.
    """
    grpc: str
    rest: str
    log: str


@dataclass(frozen=True)
class StackState:
    """A stack that was started."""

    id: str
    """Marks every process of the stack, model replicas included, through its environment."""
    folder: Path
    services: Mapping[str, ServiceState]


def folder(environ: Mapping[str, str] | None = None) -> Path:
    """The state folder: `PENSTOCK_STATE`, else `$XDG_STATE_HOME/penstock`, else `~/.local/state/penstock`."""
    env = os.environ if environ is None else environ
    if explicit := env.get("PENSTOCK_STATE"):
        return Path(explicit).absolute()
    return Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "penstock"


def read(at: Path) -> StackState | None:
    """The stack that the folder tells of, or None; a file that cannot be understood counts as none."""
    try:
        document = json.loads((at / _FILE).read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            return None
        services = {name: ServiceState(**entry) for name, entry in document["services"].items()}
        return StackState(document["id"], at, services)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(stack: StackState) -> None:
    """Replaces the file; readers see the old or the new one, never half of it."""
    document = {
        "format": _FORMAT,
        "id": stack.id,
        "services": {name: asdict(entry) for name, entry in stack.services.items()},
    }
    draft = stack.folder / f"{_FILE}.{os.getpid()}"
    draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draft.replace(stack.folder / _FILE)


def remove(at: Path) -> None:
    """Forgets the stack."""
    (at / _FILE).unlink(missing_ok=True)
