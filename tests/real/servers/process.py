"""Child processes of tests: started with a log, waited for until they serve, and gone afterwards, always.

Three nets catch what would otherwise be left: a child gets SIGKILL from the kernel when this process dies;
stopping kills its whole process group; and whatever detached itself from the group still carries our mark in
its environment, by which it is found and killed, also by the next run when this one was killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.tools import catalogue

MARK = "PENSTOCK_REAL_SERVER"
"""Environment variable of every server: `PID-STARTED` of the process that owns it."""

_POLL = 0.05
_given: set[int] = set()


class ServerError(Exception):
    """A real server could not be started, or ended while it was needed; the text carries its log."""


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on and that this process has not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Server:
    """One running child process with the file that its output goes to."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        cwd: Path,
        *,
        env: Mapping[str, str],
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log = cwd / f"{name}.log"
        self._stop_signal = stop_signal
        as_user = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *as_user, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) | {MARK: identity(os.getpid())},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def failure(self, what: str) -> ServerError:
        """Return an error that says what is wrong and shows the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-60:] if self.log.exists() else []
        return ServerError(f"{self.name}: {what}; the end of {self.log}:\n" + "\n".join(lines))

    def wait_until(self, what: str, probe: Callable[[], bool], timeout: float = 60.0) -> None:
        """Poll `probe` until it holds. Raises ServerError when the process ends or time runs out first."""
        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise self.failure(f"ended with status {self._process.returncode} before it was {what}")
            problem = ""
            try:
                if probe():
                    return
            except Exception as error:  # noqa: BLE001 - a server that is not up yet fails in any way; the last one is told
                problem = f" (last: {error!r})"
            if time.monotonic() > deadline:
                raise self.failure(f"not {what} after {timeout:.0f} s{problem}")
            time.sleep(_POLL)

    def wait_until_listening(self, port: int, timeout: float = 60.0) -> None:
        """Wait until this very server listens on a port; another that has the port does not count."""
        self.wait_until(f"listening on port {port}", lambda: self._listens(port), timeout)

    def _listens(self, port: int) -> bool:
        sockets = {f"socket:[{inode}]" for inode in _listening(port)}
        for folder in Path("/proc").glob("[0-9]*/fd"):
            if _group(int(folder.parent.name)) == self._process.pid and sockets & _open_files(folder):
                return True
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server itself, for tests of outages."""
        self._process.send_signal(number)

    def stop(self, patience: float = 10.0) -> None:
        """End the process: politely, then by force with its whole group."""
        if self.running:
            self._process.send_signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            self._process.kill()
        self._process.wait()
        _kill_group(self._process.pid, patience=10)


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    patience: float = 10.0,
) -> Iterator[Server]:
    """Run a server in `folder`, its log in `folder/NAME.log`, for the length of the block.

    `user` is who it runs as when we are root; `patience` is how many seconds it gets to end by itself. The
    thread that starts a server must outlive it: the kernel kills the child together with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **(env or {})}
    server = Server(name, command, folder, env=environment, user=user, stop_signal=stop_signal)
    try:
        yield server
    finally:
        server.stop(patience)


def program(tool: str, name: str | None = None) -> str:
    """Return the path of a tool's program, by default the one called like it."""
    return str(catalogue.program(tool, name))


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> str:
    """Run a short command and return what it printed. Raises ServerError with that output when it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=timeout, env={**os.environ, **(env or {})},
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerError(
            f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stdout}"
        )
    return done.stdout


def identity(pid: int) -> str:
    """Return a PID with when it started, in ticks since boot: together they name one process for good."""
    try:
        return f"{pid}-" + Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return f"{pid}-gone"


def is_alive(owner: str) -> bool:
    """Tell whether the process of an identity still runs."""
    return owner == identity(int(owner.partition("-")[0]))


def left_behind(*, of_dead_owners: bool = False) -> list[int]:
    """Return processes that carry our mark: of this process, or of owners that are no longer there."""
    mine = identity(os.getpid())
    found = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        owner = _owner(pid)
        if owner and (not is_alive(owner) if of_dead_owners else owner == mine):
            found.append(pid)
    return found


def reap(*, of_dead_owners: bool = False, timeout: float = 10.0) -> list[int]:
    """Kill every process that carries our mark and wait until it is gone; return those that were found."""
    found = left_behind(of_dead_owners=of_dead_owners)
    deadline = time.monotonic() + timeout
    while left := left_behind(of_dead_owners=of_dead_owners):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise ServerError(f"processes {left} cannot be killed")
        time.sleep(_POLL)
    return found


def _listening(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a TCP port (state 0A of proc(5)'s net/tcp)."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    return [fields[9] for fields in lines if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _open_files(folder: Path) -> set[str]:
    """Return what the descriptors of a process point at; nothing for one that has ended or is not ours."""
    try:
        return {os.readlink(descriptor) for descriptor in folder.iterdir()}
    except OSError:
        return set()


def _kill_group(leader: int, patience: float) -> None:
    """Kill what is left of a process group and wait until it is gone."""
    deadline = time.monotonic() + patience
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(leader, signal.SIGKILL)
            time.sleep(0.01)


def _owner(pid: int) -> str:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    prefix = MARK.encode() + b"="
    return next(
        (part[len(prefix) :].decode() for part in environment.split(b"\0") if part.startswith(prefix)), ""
    )
