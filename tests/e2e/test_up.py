"""`penstock up`, `status` and `down` as a person uses them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from penstock_client.local import processes, state

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def command(folder: Path) -> Iterator[list[str]]:
    """The command, and whatever it started ended afterwards."""
    yield [sys.executable, "-m", "penstock_client"]
    stack = state.read(folder)
    if stack is not None:
        processes.stop_processes(processes.marked(stack.id), limit=5)


@pytest.fixture
def penstock(command: list[str], folder: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environ(folder),
            timeout=90,
        )

    return run


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_STATE": str(folder), "NO_COLOR": "1"}


def left(folder: Path) -> list[psutil.Process]:
    """Processes that were begun for the folder and still run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PENSTOCK_STATE") == str(folder):
                found.append(process)
    return found


def services(penstock: Run) -> dict[str, dict[str, object]]:
    return {s["name"]: s for s in json.loads(penstock("status", "-o", "json").stdout)["services"]}


def test_up_status_and_down_may_be_called_again_and_leave_nothing(penstock: Run, folder: Path) -> None:
    up = penstock("up", "--first-port", "0")
    assert up.returncode == 0, up.stderr
    assert "\x1b" not in up.stdout + up.stderr
    assert "penstock predict" in up.stdout
    first = services(penstock)
    assert {name: s["state"] for name, s in first.items()} == dict.fromkeys(("aigw", "mds", "dplo"), "ready")

    again = penstock("up")
    assert again.returncode == 0
    assert services(penstock) == first

    os.kill(int(first["mds"]["pid"]), signal.SIGKILL)  # type: ignore[call-overload]  # an int in JSON
    assert penstock("status").returncode == 6
    repaired = penstock("up")
    assert repaired.returncode == 0, repaired.stderr
    second = services(penstock)
    assert second["mds"]["pid"] != first["mds"]["pid"]
    assert second["mds"]["grpc"] == first["mds"]["grpc"]
    assert second["aigw"] == first["aigw"]

    stack = state.read(folder)
    assert stack is not None
    assert penstock("down").returncode == 0
    assert processes.marked(stack.id) == []
    down = penstock("down")
    assert (down.returncode, down.stderr.strip()) == (0, "nothing was running")


def test_a_stack_whose_processes_are_gone_is_started_anew(penstock: Run, folder: Path) -> None:
    """After the machine was started anew, process numbers belong to others: those must not be touched."""
    folder.mkdir()
    own = psutil.Process()
    stale = state.ServiceState(own.pid, own.create_time() - 100, "127.0.0.1:1", "http://127.0.0.1:2", "")
    state.write(state.StackState("gone", folder, {"aigw": stale}))

    down = penstock("down")

    assert down.returncode == 0
    assert own.is_running()
    assert state.read(folder) is None


def test_a_port_that_is_taken_is_named_with_who_has_it_and_nothing_is_started(
    penstock: Run, folder: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        up = penstock("up", "--first-port", str(port))

    assert up.returncode == 5
    assert f"port {port}, which AIGW needs for gRPC, is taken by process {os.getpid()}" in " ".join(
        up.stderr.split()
    )
    assert "--first-port" in up.stderr
    assert state.read(folder) is None


def test_in_the_foreground_it_stays_and_stops_everything_at_the_end(command: list[str], folder: Path) -> None:
    process = subprocess.Popen(
        [*command, "up", "--first-port", "0", "--foreground"],
        env=environ(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
        stack = state.read(folder)
        assert stack is not None
        assert len(processes.marked(stack.id)) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=40) == 0
        assert processes.marked(stack.id) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_service_that_cannot_start_is_told_with_the_end_of_its_log(
    command: list[str], folder: Path
) -> None:
    broken = folder / "packages"
    folder.mkdir()
    broken.write_text("a file where a folder must be")

    up = subprocess.run(
        [*command, "up", "--first-port", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=environ(folder),
        timeout=90,
    )

    assert up.returncode in {5, 6}
    assert "MDS ended while starting" in up.stderr
    assert "packages" in up.stderr
    assert "Traceback" not in up.stderr.split("The end of its log")[0]
    assert left(folder) == []
    assert state.read(folder) is None
