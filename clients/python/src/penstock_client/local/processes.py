"""Processes of the stack: starting them apart from us, telling whether they live, finding and ending them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from penstock_client.local.state import ServiceState

MARKER = "PENSTOCK_STACK"
"""Environment variable that every process of a stack carries and hands on to its children."""

# Held so that the interpreter does not complain of children that are meant to outlive it.
_left_running: list[subprocess.Popen[bytes]] = []


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Starts a process in a session of its own, so that the terminal's Ctrl-C does not reach it; its pid."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _left_running.append(process)
    return process.pid


def started_at(pid: int) -> float:
    """When a process began; 0 if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def is_running(service: ServiceState) -> bool:
    """Whether it is that very process that runs, and not a later one with its number."""
    return _live(service) is not None


def exit_code(pid: int) -> int | None:
    """How a child of ours ended; None while it runs or when it was not ours."""
    return next((process.poll() for process in _left_running if process.pid == pid), None)


def _live(service: ServiceState) -> psutil.Process | None:
    try:
        process = psutil.Process(service.pid)
        if abs(process.create_time() - service.started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.Error:
        return None
    return process


def marked(stack_id: str) -> list[psutil.Process]:
    """All processes that carry the mark of a stack, its model replicas included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER) == stack_id and process.pid != os.getpid():
                found.append(process)
    return found


def stop(services: Iterable[ServiceState], *, limit: float) -> list[int]:
    """Asks processes to end and waits `limit` seconds; kills what is left. The pids that had to be killed."""
    return stop_processes([process for service in services if (process := _live(service))], limit=limit)


def stop_processes(processes: Sequence[psutil.Process], *, limit: float) -> list[int]:
    """The same for processes found otherwise."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(list(processes), timeout=limit)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    _left_running[:] = [process for process in _left_running if process.poll() is None]
    return [process.pid for process in alive]


def port_owner(host: str, port: int) -> str | None:
    """Who listens on a port, as far as this user may know; None when the port is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return None
        except OSError:
            pass
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and tuple(connection.laddr)[1:] == (port,) and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def log_tail(path: Path, lines: int = 12) -> str:
    """The end of a log, for an error message."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def pause(seconds: float = 0.05) -> None:
    """Waits before something is looked at again."""
    time.sleep(seconds)
