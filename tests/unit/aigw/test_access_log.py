"""The access log tells every call, never waits, and never tells a secret."""

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from aigw.adapters.access_sinks import FileSink, StreamSink, open_sink
from aigw.app.access_log import AccessLog
from chassis import errors
from chassis.errors import Code


@pytest.fixture
def log(gateway) -> AccessLog:
    return AccessLog(gateway.sink, orjson.dumps, clock=gateway.clock, capacity=10, sample_ratio=1.0)


async def test_a_line_tells_what_became_of_a_call(gateway, log) -> None:
    gateway.observer._access_log = log
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    gateway.replicas["a"].fails(errors.Unavailable("refused", reason="UNAVAILABLE"))
    exchange = gateway.exchange()
    exchange.identity, exchange.metadata = "ann", (("authorization", "Bearer secret"),)
    await gateway.infer(exchange)
    await log.flush_once()
    line = orjson.loads(gateway.sink.lines[0])
    assert line.pop("time").startswith("2023-11-14T22:13:20")
    assert line.pop("latency_ms") >= 0
    assert line == {
        "project": "digits",
        "model": "classifier",
        "version": "1",
        "endpoint": "b",
        "method": "ModelInfer",
        "protocol": "grpc",
        "code": "OK",
        "request_bytes": 3,
        "response_bytes": 1,
        "attempts": 2,
        "trace_id": "",
        "identity": "ann",
    }
    assert b"secret" not in b"".join(gateway.sink.lines)


async def test_a_failed_call_tells_its_reason_and_the_version_asked_for(gateway, log) -> None:
    gateway.observer._access_log = log
    await gateway.route(("1", 1))
    with pytest.raises(errors.NotFound):
        await gateway.infer(version="9")
    await log.flush_once()
    line = orjson.loads(gateway.sink.lines[0])
    assert (line["code"], line["reason"], line["asked_version"], line["attempts"]) == (
        "NOT_FOUND",
        "VERSION_NOT_FOUND",
        "9",
        0,
    )


async def test_a_full_buffer_drops_and_counts_and_says_so(gateway, log) -> None:
    for _ in range(25):
        log.add(gateway.clock.time(), 0.1, gateway.exchange())
    assert (await log.flush_once(), log.dropped, log.written) == (10, 15, 10)
    assert orjson.loads(gateway.sink.lines[-1])["dropped"] == 15
    log.add(gateway.clock.time(), 0.1, gateway.exchange())
    await log.flush_once()
    assert "dropped" not in orjson.loads(gateway.sink.lines[-1])


async def test_sampling_is_even_and_spares_failures(gateway) -> None:
    log = AccessLog(gateway.sink, orjson.dumps, clock=gateway.clock, sample_ratio=0.1)
    for number in range(100):
        exchange = gateway.exchange()
        exchange.code = Code.INTERNAL if number % 20 == 0 else Code.OK
        log.add(gateway.clock.time(), 0.1, exchange)
    await log.flush_once()
    codes = [orjson.loads(line)["code"] for line in gateway.sink.lines]
    assert (codes.count("INTERNAL"), codes.count("OK")) == (5, 10)


async def test_lines_are_written_soon_and_the_rest_at_the_end(gateway, log) -> None:
    task = asyncio.create_task(log.run())
    try:
        log.add(gateway.clock.time(), 0.1, gateway.exchange())
        await gateway.clock.settle()
        assert gateway.sink.lines == []
        await gateway.clock.advance(0.2)
        await asyncio.to_thread(gateway.sink.wrote.wait, 5.0)  # the sink runs in a thread
        assert len(gateway.sink.lines) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    log.add(gateway.clock.time(), 0.1, gateway.exchange())
    await log.close()
    assert (len(gateway.sink.lines), gateway.sink.closed) == (2, True)


async def test_without_a_sink_nothing_is_kept(gateway) -> None:
    log = AccessLog(None, orjson.dumps, clock=gateway.clock)
    log.add(gateway.clock.time(), 0.1, gateway.exchange())
    assert await log.flush_once() == 0
    await log.close()


def test_a_file_is_rotated_by_size_and_old_ones_are_kept_in_number(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "logs" / "access.log", max_bytes=10, backups=2)
    for line in (b"one one\n", b"two two\n", b"three\n", b"four four\n"):
        sink.write(line)
    sink.close()
    found = {path.name: path.read_bytes() for path in (tmp_path / "logs").iterdir()}
    assert found == {"access.log": b"four four\n", "access.log.1": b"three\n", "access.log.2": b"two two\n"}


def test_a_file_is_continued_by_the_next_process(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        sink = FileSink(tmp_path / "access.log", max_bytes=0, backups=0)
        sink.write(line)
        sink.close()
    assert (tmp_path / "access.log").read_bytes() == b"one\ntwo\n"


def test_without_backups_a_full_file_starts_over(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "access.log", max_bytes=5, backups=0)
    sink.write(b"one\n")
    sink.write(b"two\n")
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["access.log"]
    assert (tmp_path / "access.log").read_bytes() == b"two\n"


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    """Written by a child, because the limit on the size of files stays with a process."""
    script = f"""
import contextlib, resource
from pathlib import Path
from aigw.adapters.access_sinks import FileSink
sink = FileSink(Path({str(tmp_path / "access.log")!r}), max_bytes=0, backups=0)
sink.write(b"one\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
with contextlib.suppress(OSError):
    sink.write(b"longer than what is left\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.write(b"three\\n")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert (tmp_path / "access.log").read_bytes() == b"one\nthree\n"


def test_a_file_that_cannot_be_moved_is_written_on(tmp_path: Path) -> None:
    (tmp_path / "access.log.1" / "in the way").mkdir(parents=True)
    sink = FileSink(tmp_path / "access.log", max_bytes=5, backups=1)
    for line in (b"one\n", b"two\n", b"three\n"):
        sink.write(line)
    sink.close()
    assert (tmp_path / "access.log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_file_that_cannot_be_written_is_a_clear_error_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FailedPrecondition, match=r"access log .* cannot be written"):
        FileSink(tmp_path / "file" / "access.log", max_bytes=0, backups=0)


def test_sinks_are_chosen_by_name_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    assert open_sink("off", tmp_path, max_bytes=0, backups=0) is None
    assert isinstance(open_sink("stdout", tmp_path, max_bytes=0, backups=0), StreamSink)
    with pytest.raises(errors.InvalidArgument, match="there are file, stdout and off"):
        open_sink("syslog", tmp_path, max_bytes=0, backups=0)


def test_a_stream_gets_whole_lines() -> None:
    stream = io.BytesIO()
    sink = StreamSink(stream)
    sink.write(b"line\n")
    sink.close()
    assert stream.getvalue() == b"line\n"


async def test_a_full_disk_loses_lines_and_is_told_once(gateway) -> None:
    told: list[OSError] = []

    class FullDisk:
        full = True

        def write(self, lines: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    sink = FullDisk()
    log = AccessLog(sink, orjson.dumps, clock=gateway.clock, on_failure=told.append)
    for _ in range(3):
        log.add(gateway.clock.time(), 0.1, gateway.exchange())
        await log.flush_once()
    assert ([error.errno for error in told], log.dropped, log.written) == ([28], 3, 0)
    sink.full = False
    log.add(gateway.clock.time(), 0.1, gateway.exchange())
    await log.flush_once()
    assert log.written == 1
    await log.close()
