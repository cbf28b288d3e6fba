"""The ground under all fixtures: a server that cannot start says why, and none is ever left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.servers import process
from tests.real.servers.consul import consul_cluster
from tests.real.servers.process import ServerError, program, running
from tests.real.servers.redis import redis
from tests.real.waiting import until

PYTHON = sys.executable


def naming(folder: Path) -> list[int]:
    """Return the processes of this machine whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


def sleeping(number: int) -> list[int]:
    """Return the processes of this machine that sleep for that many seconds."""
    wanted = f"sleep\0{number}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == wanted:
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


@pytest.fixture
def seconds() -> int:
    """A time to sleep by which the processes of one test are told from all others."""
    return 10_000_000 + process.free_port()


def test_a_server_that_ends_at_once_fails_with_its_log(tmp_path: Path) -> None:
    command = [program("redis", "redis-server"), "--port", "not-a-port"]
    with (
        pytest.raises(ServerError, match=r"(?s)redis: ended with status 1 before it was up.*not-a-port"),
        running("redis", command, tmp_path) as server,
    ):
        server.wait_until("up", lambda: False)


def test_a_server_that_never_gets_ready_fails_with_its_log_and_is_stopped(
    tmp_path: Path, seconds: int
) -> None:
    command = ["sh", "-c", f"echo still loading; sleep {seconds} & wait"]
    with (
        pytest.raises(
            ServerError, match=r"(?s)slow: not ready after 0 s \(last: .*ZeroDivisionError.*still loading"
        ),
        running("slow", command, tmp_path) as server,
    ):
        server.wait_until("ready", lambda: 1 / 0 > 1, timeout=0.3)
    assert sleeping(seconds) == []


def test_a_port_that_is_taken_is_told_by_the_server_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis(tmp_path / "first") as first:
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        monkeypatch.setattr("tests.real.servers.redis.free_port", lambda: port)
        with pytest.raises(ServerError, match="Address already in use"), redis(tmp_path / "second"):
            pass


def test_what_detached_itself_from_its_server_is_found_and_killed(tmp_path: Path, seconds: int) -> None:
    # In a process of its own: reaping here would take the servers of the other tests along.
    script = f"""
from pathlib import Path
from tests.real.servers.process import left_behind, reap, running
from tests.real.test_process import sleeping
with running("daemon", ["sh", "-c", "setsid sleep {seconds} & wait"], Path({str(tmp_path)!r})) as server:
    server.wait_until("detached", lambda: sleeping({seconds}) != [])
assert sleeping({seconds}) == left_behind() != [], "it left its group, so stopping that does not end it"
assert reap() != []
assert left_behind() == []
"""
    runner = start(script)
    assert runner.wait(30) == 0
    assert sleeping(seconds) == []


async def test_servers_end_with_a_test_run_that_is_killed(tmp_path: Path, seconds: int) -> None:
    script = f"""
import time
from pathlib import Path
from tests.real.servers.process import running
with running("orphan", ["sleep", "{seconds}"], Path({str(tmp_path)!r})):
    time.sleep(60)
"""
    runner = start(script)
    try:
        await until(lambda: found(seconds))
    finally:
        runner.kill()
        runner.wait()
    await until(lambda: gone(seconds))


async def test_what_a_killed_test_run_left_detached_is_reaped_by_the_next_one(
    tmp_path: Path, seconds: int
) -> None:
    script = f"""
import os, signal, time
from pathlib import Path
from tests.real.servers.process import running
with running("orphan", ["sh", "-c", "setsid sleep {seconds} & wait"], Path({str(tmp_path)!r})):
    time.sleep(60)
"""
    runner = start(script)
    try:
        await until(lambda: found(seconds))
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert len(sleeping(seconds)) == 1
    process.reap(of_dead_owners=True)
    assert sleeping(seconds) == []


def test_when_a_part_of_a_server_cannot_start_the_parts_before_it_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = iter([program("consul"), program("consul"), "/nonexistent/consul"])
    monkeypatch.setattr("tests.real.servers.consul.program", lambda tool: next(programs))
    with pytest.raises(ServerError, match="nonexistent"), consul_cluster(tmp_path):
        pass
    assert next(programs, None) is None  # two members had been started
    assert naming(tmp_path) == []


def start(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([PYTHON, "-c", script], env={**os.environ, "PYTHONPATH": os.getcwd()})


async def found(seconds: int) -> bool:
    return sleeping(seconds) != []


async def gone(seconds: int) -> bool:
    return sleeping(seconds) == []
