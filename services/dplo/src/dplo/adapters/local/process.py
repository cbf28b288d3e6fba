"""Processes that may not be our children: who they are, whether they live, and how they are ended."""

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process id and when that process began: process ids are used again, both together are not."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether that very process runs; one that has ended and was not waited for does not."""
        state, started = _look(self.pid)
        return state not in ("", "Z", "X") and self.started in ("", started)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if it still lives."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kills it and everything it started: it leads a process group of its own.

        Only for a process that was seen alive by its start time lately: the number of a group that is long
        gone may belong to somebody else.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def read_identity(path: Path) -> ProcessIdentity | None:
    """What the launcher wrote; None if it has not come so far."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return ProcessIdentity(int(content["pid"]), str(content["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _look(pid: int) -> tuple[str, str]:
    """State letter and start time of a process; ("", "") if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ("", "") if Path("/proc/self/stat").exists() else _look_by_ps(pid)
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("", "")


def _look_by_ps(pid: int) -> tuple[str, str]:
    """Where there is no /proc. The launcher could not tell a start time either, so none is compared."""
    answer = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return (answer.stdout.strip()[:1], "") if answer.returncode == 0 else ("", "")
