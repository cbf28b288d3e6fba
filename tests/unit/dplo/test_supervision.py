"""What the local cluster does for one replica, as a table; and the files it reads and writes."""

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from chassis import errors
from dplo.adapters.local import logs
from dplo.adapters.local.capacity import Machine, admit, choose_ports
from dplo.adapters.local.record import Exit, ReplicaRecord
from dplo.adapters.local.supervision import (
    Kill,
    ProcessFacts,
    Remove,
    RestartPolicy,
    Start,
    Step,
    Terminate,
    replica_state,
    supervise,
)
from dplo.adapters.packages.archive import read_digest, verify
from dplo.adapters.packages.cache import PackageCache
from dplo.domain.observed import ReplicaState
from dplo.domain.spec import Accelerator, Resources

RECORD = ReplicaRecord("r-0", "projects/a/deployments/b", "1", "f", 0, "clusters/local", ("x",), (), 5.0)
POLICY = RestartPolicy(first_delay=1.0, largest_delay=8.0, stable_after=10.0, looping_after=3)
NOTHING = ProcessFacts(alive=False, known=False)
ALIVE = ProcessFacts(alive=True, known=True)
HEALTHY = replace(ALIVE, healthy=True, was_healthy=True)
DEAD = ProcessFacts(alive=False, known=True, exit_code=1)
RUNNING = replace(RECORD, started_at=100.0)
STOPPING = replace(RUNNING, stop_requested_at=110.0)


@pytest.mark.parametrize(
    ("record", "facts", "now", "step"),
    [
        (RECORD, NOTHING, 100.0, Start),
        (replace(RECORD, next_start_at=101.0), NOTHING, 100.0, None),
        (replace(RECORD, next_start_at=101.0), NOTHING, 101.0, Start),
        (RUNNING, ALIVE, 100.5, None),
        (RUNNING, HEALTHY, 500.0, None),
        (RUNNING, replace(ALIVE, was_healthy=True, unhealthy_since=200.0), 230.0, None),
        (RUNNING, replace(ALIVE, was_healthy=True, unhealthy_since=200.0), 261.0, Kill),
        (RUNNING, DEAD, 105.0, None),
        (STOPPING, HEALTHY, 110.0, Terminate),
        (replace(STOPPING, term_sent=True), HEALTHY, 114.0, None),
        (replace(STOPPING, term_sent=True), HEALTHY, 118.0, Kill),
        (STOPPING, DEAD, 111.0, Remove),
        (STOPPING, NOTHING, 111.0, Remove),
    ],
    ids=[
        "new", "backing off", "backed off", "starting", "serving", "unhealthy", "unhealthy too long", "ended",
        "asked to stop", "draining", "draining too long", "drained", "never started",
    ],
)  # fmt: skip
def test_one_look_at_a_replica(record: ReplicaRecord, facts: ProcessFacts, now: float, step: Step) -> None:
    assert supervise(record, facts, now, POLICY, 60.0)[1] is step


def test_ends_in_a_row_wait_longer_and_longer_until_a_replica_lives() -> None:
    record, now, waits = RECORD, 100.0, []
    for _ in range(7):
        record = replace(record, started_at=now)
        now += 1.0
        record, _ = supervise(record, DEAD, now, POLICY, 60.0)
        waits.append(record.next_start_at - now)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert record.restarts == 7
    assert record.last_exit == Exit(now, 1.0, 1)
    record = replace(record, started_at=now)
    record, _ = supervise(record, HEALTHY, now + 11, POLICY, 60.0)
    assert record.failures == 0


def test_a_replica_that_lived_long_is_started_again_at_once() -> None:
    record, _ = supervise(replace(RUNNING, failures=4), DEAD, 1000.0, POLICY, 60.0)
    assert (record.failures, record.next_start_at) == (1, 1000.0)


@pytest.mark.parametrize(
    ("record", "facts", "state"),
    [
        (RECORD, NOTHING, ReplicaState.PENDING),
        (RUNNING, ALIVE, ReplicaState.STARTING),
        (RUNNING, HEALTHY, ReplicaState.HEALTHY),
        (RUNNING, replace(HEALTHY, healthy=False), ReplicaState.UNHEALTHY),
        (replace(RUNNING, failures=3), NOTHING, ReplicaState.CRASH_LOOPING),
        (replace(RUNNING, failures=3), ALIVE, ReplicaState.CRASH_LOOPING),
        (replace(RUNNING, failures=3), HEALTHY, ReplicaState.HEALTHY),
        (STOPPING, HEALTHY, ReplicaState.DRAINING),
    ],
    ids=["new", "starting", "healthy", "unhealthy", "looping", "looping, started", "came up", "draining"],
)
def test_states_of_a_replica(record: ReplicaRecord, facts: ProcessFacts, state: ReplicaState) -> None:
    assert replica_state(record, facts, POLICY) is state


def test_logs_are_cut_to_size_and_read_across_the_cut(tmp_path: Path) -> None:
    log = tmp_path / "r.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert logs.is_larger(log, 500)
    logs.rotate(log, 2)
    with log.open("a") as file:
        file.write("line 100\nline 101")
    assert not logs.is_larger(log, 500)
    tail = logs.tail(log, 4)
    assert tail.lines == ("line 98", "line 99", "line 100", "line 101")
    assert tail.truncated
    for _ in range(3):
        logs.rotate(log, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.log", "r.log.1", "r.log.2"]


def test_a_log_of_bytes_that_are_no_text_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "r.log").write_bytes(b"\xff\xfe\n" + b"x" * 100_000)
    assert len(logs.tail(tmp_path / "r.log", 5).lines) == 2
    assert logs.tail(tmp_path / "none.log", 5).lines == ()


MACHINE = Machine(cpu=2.0, memory_bytes=1000, accelerators=2, replicas=3)


@pytest.mark.parametrize(
    ("running", "wanted"),
    [
        ([RECORD] * 3, Resources()),
        ([replace(RECORD, cpu=1.5)], Resources(cpu=1.0)),
        ([replace(RECORD, memory_bytes=600)], Resources(memory_bytes=500)),
        ([replace(RECORD, accelerators=(0,))], Resources(accelerator=Accelerator("nvidia-gpu", 2))),
    ],
    ids=["replicas", "cpu", "memory", "accelerators"],
)
def test_no_room_is_an_error_that_says_what_is_short(running: list[ReplicaRecord], wanted: Resources) -> None:
    with pytest.raises(errors.ResourceExhausted) as raised:
        admit(MACHINE, running, wanted)
    assert raised.value.reason == "NO_CAPACITY"


def test_accelerators_are_given_out_once() -> None:
    wanted = Resources(accelerator=Accelerator("nvidia-gpu", 1))
    assert admit(MACHINE, [replace(RECORD, accelerators=(0,))], wanted) == (1,)


def test_a_range_without_two_free_ports_is_an_error() -> None:
    with pytest.raises(errors.ResourceExhausted) as raised:
        choose_ports(range(45000, 45003), {45000, 45001}, "127.0.0.1")
    assert raised.value.reason == "NO_PORT"
    assert choose_ports(None, set(), "127.0.0.1") == (0, 0)


# Packages.


def archive(path: Path, files: dict[str, bytes], *, listed: dict[str, bytes] | None = None) -> str:
    """A package archive, and its digest. `listed` is what the manifest says, if that is another."""
    entries = [
        {"path": name, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}"}
        for name, content in (listed or files).items()
    ]
    manifest = json.dumps({"files": entries}, sort_keys=True, separators=(",", ":")).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in {"manifest.json": manifest, **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_a_whole_package_is_accepted_and_its_digest_read(tmp_path: Path) -> None:
    digest = archive(tmp_path / "p", {"model/m.onnx": b"weights", "code/a.py": b"code"})
    assert read_digest(tmp_path / "p") == digest
    verify(tmp_path / "p", digest, "p")


@pytest.mark.parametrize(
    ("files", "listed", "text"),
    [
        ({"a": b"1"}, {"a": b"2"}, "the content of 'a' is not what its manifest says"),
        ({"a": b"1", "b": b"2"}, {"a": b"1"}, "holds 'b', which its manifest does not list"),
        ({"a": b"1"}, {"a": b"1", "b": b"2"}, "'b' is missing"),
    ],
    ids=["changed", "smuggled", "missing"],
)
def test_a_corrupt_package_is_refused(
    tmp_path: Path, files: dict[str, bytes], listed: dict[str, bytes], text: str
) -> None:
    digest = archive(tmp_path / "p", files, listed=listed)
    with pytest.raises(errors.DataLoss, match="corrupt") as raised:
        verify(tmp_path / "p", digest, "p")
    assert raised.value.reason == "PACKAGE_CORRUPT"
    assert text in raised.value.message


def test_a_package_with_another_digest_is_refused(tmp_path: Path) -> None:
    archive(tmp_path / "p", {"a": b"1"})
    with pytest.raises(errors.DataLoss) as raised:
        verify(tmp_path / "p", "sha256:" + "0" * 64, "p")
    assert raised.value.reason == "PACKAGE_DIGEST_MISMATCH"


@pytest.mark.parametrize("keep", [0, 300, 700, 1300])
def test_a_package_that_is_cut_off_anywhere_is_refused(tmp_path: Path, keep: int) -> None:
    digest = archive(tmp_path / "p", {"a": b"1" * 700})
    content = (tmp_path / "p").read_bytes()[:keep]
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(errors.DataLoss):
        verify(tmp_path / "p", digest, "p")


async def test_the_cache_shows_only_what_is_whole_and_verified(tmp_path: Path) -> None:
    digest = archive(tmp_path / "p", {"a": b"1"})
    content = (tmp_path / "p").read_bytes()
    cache = PackageCache(tmp_path / "cache")

    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        yield data[:100]
        yield data[100:]

    with pytest.raises(errors.DataLoss):
        await cache.store(digest, "p", chunks(content[:1100]))
    assert cache.digests() == frozenset()
    await cache.store(digest, "p", chunks(content))
    assert cache.digests() == {digest}
    assert cache.path(digest).read_bytes() == content
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".mdspkg"]
