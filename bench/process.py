"""Starts a server as a child process and reads the CPU time of its whole process tree from /proc."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 10.0


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5)), or None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def tree(root: int) -> set[int]:
    """The process ids of `root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        if stat := _stat(int(name)):
            children.setdefault(int(stat[1]), []).append(int(name))
    found: set[int] = set()
    todo = [root]
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(pids: set[int]) -> float:
    """User plus system time that these processes have used so far, in seconds, to a clock tick."""
    stats = filter(None, map(_stat, pids))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS_PER_SECOND


@dataclass
class Server:
    """A child process under measurement, with its log kept for when it fails."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    ready_seconds: float = 60.0

    def __enter__(self) -> "Server":
        self.log = tempfile.NamedTemporaryFile(prefix=f"bench-{self.name}-", suffix=".log", delete=False)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, **threads, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.ready_seconds
        last: Exception | None = None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} exited with {self.process.returncode}:\n{self._log_tail()}")
            try:
                if self.ready():
                    return
            except Exception as error:  # noqa: BLE001 - any failure means not ready yet; the last one is reported
                last = error
            time.sleep(0.1)
        raise RuntimeError(
            f"{self.name} was not ready in {self.ready_seconds:.0f} s: {last}\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        return Path(self.log.name).read_text(errors="replace")[-4000:]

    def cpu_seconds(self) -> float:
        return cpu_seconds(tree(self.process.pid))

    def __exit__(self, *_: object) -> None:
        pids = tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids - {self.process.pid}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.log.close()
        Path(self.log.name).unlink()
