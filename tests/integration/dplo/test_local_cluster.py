"""The local cluster with real processes, small enough to start in no time."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chassis import errors
from chassis.clock import SystemClock
from dplo.adapters.local import logs
from dplo.adapters.local.capacity import Machine
from dplo.adapters.local.operator import LocalCluster, LocalOptions
from dplo.adapters.local.supervision import RestartPolicy
from dplo.app.ports import LogTail, Placement
from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.observed import Replica, ReplicaState
from dplo.domain.spec import PackagePin, VersionSpec

NAME = DeploymentName("p", "d")
SCRIPT = """
import http.server, json, os, signal, sys, time
mode = os.environ.get("MODE", "")
print("starting as", mode, flush=True)
if mode == "crash":
    sys.exit("the weights are of another planet")
class Face(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v2/health/ready" else 404)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Face)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if mode == "late":
    time.sleep(1)
part = os.environ["MDS_ADDRESSES_FILE"] + ".part"
with open(part, "w") as file:
    address = "127.0.0.1:%d" % server.server_port
    pid = 0 if mode == "late" else os.getpid()
    json.dump({"grpc": address, "rest": "http://" + address, "pid": pid}, file)
os.replace(part, os.environ["MDS_ADDRESSES_FILE"])
server.serve_forever()
"""


@pytest.fixture
def options(tmp_path: Path) -> LocalOptions:
    script = tmp_path / "replica.py"
    script.write_text(SCRIPT)
    return LocalOptions(
        tmp_path / "local",
        command=(sys.executable, "-S", str(script)),
        probe_interval=0.1,
        restart=RestartPolicy(first_delay=0.05, stable_after=0.5),
    )


@asynccontextmanager
async def cluster(options: LocalOptions, folder: Path) -> AsyncIterator[LocalCluster]:
    """A cluster with its loop running; at the end it lets its replicas be."""
    made = LocalCluster(
        options,
        Machine(64, 1 << 40, 0, 4),
        SystemClock(),
        package_path=lambda digest: folder / digest,
        environment=lambda placement: {
            **dict(placement.version.environment),
            "MDS_INSTANCE_ID": placement.replica,
            "PENSTOCK_STACK": str(folder),
        },
    )
    async with made:
        loop = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            loop.cancel()
            await asyncio.wait([loop])


def placement(ordinal: int = 0, mode: str = "", drain: float = 5.0) -> Placement:
    version = VersionSpec(
        "1", PackagePin("projects/p/models/m/packages/1", "sha256:1"), environment=(("MODE", mode),)
    )
    version = replace(version, server=replace(version.server, drain_timeout=drain))
    return Placement(NAME, ModelName("p", "m"), f"r-{ordinal}", ordinal, version)


async def until(made: LocalCluster, holds: Callable[[list[Replica]], bool]) -> list[Replica]:
    replicas: list[Replica] = []
    for _ in range(400):
        replicas = list(await made.observe(NAME))
        if holds(replicas):
            return replicas
        await asyncio.sleep(0.05)
    raise AssertionError(f"not so within 20 s: {replicas}")


def healthy(count: int) -> Callable[[list[Replica]], bool]:
    return lambda replicas: sum(r.state is ReplicaState.HEALTHY for r in replicas) == count


def pid(replica: Replica) -> int:
    return int(replica.reference.split()[1])


async def test_replicas_outlive_the_service_and_are_adopted_then_stopped(
    options: LocalOptions, tmp_path: Path
) -> None:
    async with cluster(options, tmp_path) as first:
        await first.place(placement(0))
        await first.place(placement(0))
        await first.place(placement(1))
        before = await until(first, healthy(2))
    async with cluster(options, tmp_path) as second:
        adopted = list(await second.observe(NAME))
        assert healthy(2)(adopted), "adopted at once, and not first thought to be starting"
        assert sorted(map(pid, adopted)) == sorted(map(pid, before))
        for replica in adopted:
            await second.stop(NAME, replica.id, 5.0)
        assert {r.state for r in await second.observe(NAME)} <= {ReplicaState.DRAINING}
        await until(second, lambda replicas: not replicas)
        assert list((tmp_path / "local" / "replicas").iterdir()) == []
        tail = await second.logs(NAME, "r-0", 10)
        assert tail.lines == ("starting as ",)


async def test_one_that_is_killed_is_started_again(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(options, tmp_path) as made:
        await made.place(placement())
        (first,) = await until(made, healthy(1))
        os.kill(pid(first), signal.SIGKILL)
        (again,) = await until(made, lambda r: healthy(1)(r) and r[0].restarts == 1)
        assert pid(again) != pid(first)


async def test_the_addresses_of_the_last_process_are_never_taken_for_those_of_the_next(
    options: LocalOptions, tmp_path: Path
) -> None:
    """As after process ids were used again: the file that was left behind does not tell whose it is."""
    async with cluster(options, tmp_path) as made:
        await made.place(placement(mode="late"))
        (before,) = await until(made, healthy(1))
        os.kill(pid(before), signal.SIGKILL)
        (after,) = await until(made, lambda r: healthy(1)(r) and r[0].reference != before.reference)
        assert (after.restarts, after.grpc_address == before.grpc_address) == (1, False)
        await made.stop(NAME, "r-0", 1)
        await until(made, lambda replicas: not replicas)


async def test_one_that_died_unseen_is_started_again(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(options, tmp_path) as made:
        await made.place(placement())
        (first,) = await until(made, healthy(1))
    os.kill(pid(first), signal.SIGKILL)
    async with cluster(options, tmp_path) as made:
        (again,) = await until(made, healthy(1))
        assert pid(again) != pid(first)


async def test_one_that_crashes_on_and_on_is_told_with_its_log(
    options: LocalOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = logs.tail

    def slow_tail(log: Path, lines: int) -> LogTail:
        time.sleep(0.3)  # as on a busy machine: meanwhile nobody may see it crash-looping without the reason
        return tail(log, lines)

    monkeypatch.setattr(logs, "tail", slow_tail)
    async with cluster(options, tmp_path) as made:
        await made.place(placement(mode="crash"))
        (looping,) = await until(made, lambda r: r[0].state is ReplicaState.CRASH_LOOPING)
        assert "ended with exit code 1" in looping.message
        assert "the weights are of another planet" in looping.message


async def test_one_that_does_not_end_in_time_is_killed(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(options, tmp_path) as made:
        await made.place(placement(mode="stubborn"))
        (replica,) = await until(made, healthy(1))
        await made.stop(NAME, replica.id, 0.1)
        await until(made, lambda replicas: not replicas)
        with pytest.raises(ProcessLookupError):
            os.kill(pid(replica), 0)


async def test_replicas_end_with_the_service_if_wanted(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(replace(options, stop_on_exit=True), tmp_path) as made:
        await made.place(placement())
        (first,) = await until(made, healthy(1))
    with pytest.raises(ProcessLookupError):
        os.kill(pid(first), 0)
    async with cluster(options, tmp_path) as made:
        (again,) = await until(made, healthy(1))
        assert pid(again) != pid(first)


async def test_another_service_is_kept_out_of_the_same_folder(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(options, tmp_path):
        with pytest.raises(errors.FailedPrecondition, match="another DPLO looks after"):
            async with cluster(options, tmp_path):
                pass


async def test_no_more_are_placed_than_there_is_room_for(options: LocalOptions, tmp_path: Path) -> None:
    async with cluster(options, tmp_path) as made:
        for ordinal in range(4):
            await made.place(placement(ordinal))
        with pytest.raises(errors.ResourceExhausted) as raised:
            await made.place(placement(4))
        assert raised.value.reason == "NO_CAPACITY"
