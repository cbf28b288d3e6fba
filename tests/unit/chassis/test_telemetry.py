"""Trace context, metrics conversion, span files and logs, each on its own."""

import asyncio
import json
import logging
import threading
from pathlib import Path

import pytest
from chassis.settings import TelemetrySettings
from chassis.telemetry import Telemetry, bridge, create, logs, propagation
from chassis.telemetry.metrics import RpcMetrics
from chassis.telemetry.spans import JsonLinesExporter, span_file
from chassis.testing import SpanRecorder
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

TRACEPARENTS = [
    (GOOD, True),
    (GOOD[:-2] + "00", True),
    (GOOD.replace("00-", "01-", 1) + "-more", True),
    (None, False),
    ("", False),
    (GOOD + "-more", False),
    (GOOD + "x", False),
    (GOOD.replace("00-", "ff-", 1), False),
    (GOOD.upper(), False),
    (GOOD.replace("-", "_"), False),
    ("00-" + "0" * 32 + "-b7ad6b7169203331-01", False),
    ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", False),
    (GOOD[:-1], False),
]


@pytest.mark.parametrize(("header", "valid"), TRACEPARENTS, ids=lambda v: str(v)[:64])
def test_traceparents_are_read_as_the_specification_says(header: str | None, valid: bool) -> None:
    assert (propagation.parse(header) is not None) is valid


@given(trace_id=st.integers(1, 2**128 - 1), span_id=st.integers(1, 2**64 - 1), flags=st.sampled_from([0, 1]))
def test_a_span_context_survives_the_header(trace_id: int, span_id: int, flags: int) -> None:
    span = NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags)))
    header = propagation.traceparent_of(span)
    assert header is not None
    back = propagation.parse(header)
    assert back is not None
    assert (back.trace_id, back.span_id, int(back.trace_flags)) == (trace_id, span_id, flags)
    assert propagation.is_sampled(header) is bool(flags)


@given(st.text(max_size=70))
def test_no_text_breaks_the_parser(text: str) -> None:
    propagation.parse(text, text)
    propagation.is_sampled(text)


def test_tracestate_travels_along() -> None:
    context = propagation.parse(GOOD, "vendor=1")
    assert context is not None
    token = trace.set_span_in_context(NonRecordingSpan(context))
    assert trace.get_current_span(token).get_span_context().trace_state.to_header() == "vendor=1"


def test_there_is_nothing_to_inject_without_a_span() -> None:
    assert propagation.injected() == ()


def test_request_metrics_become_opentelemetry_s() -> None:
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    metrics.method("/a.B/C").observe(0, 0.003)
    metrics.method("/a.B/C").observe(5, 20.0)
    Counter("things", "Things.", registry=registry).inc(3)
    Gauge("level", "Level.", registry=registry).set(1.5)
    converted = {m.name: m for m in bridge.to_otel(registry.collect(), start=1, now=2)}
    duration = converted["rpc.server.call.duration"]
    assert duration.unit == "s"
    by_code = {p.attributes["rpc.response.status_code"]: p for p in duration.data.data_points}
    assert set(by_code) == {"OK", "NOT_FOUND"}
    assert by_code["OK"].attributes["rpc.method"] == "a.B/C"
    assert by_code["OK"].count == 1
    assert by_code["OK"].sum == 0.003
    assert by_code["OK"].bucket_counts[2] == 1  # (0.0025, 0.005]
    assert by_code["NOT_FOUND"].bucket_counts[-1] == 1  # beyond the last bound
    assert sum(by_code["NOT_FOUND"].bucket_counts) == 1
    assert len(by_code["OK"].bucket_counts) == len(by_code["OK"].explicit_bounds) + 1
    assert converted["things"].data.is_monotonic
    assert converted["things"].data.data_points[0].value == 3
    assert converted["level"].data.data_points[0].value == 1.5


def test_histogram_children_of_other_labels_do_not_mix() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("size", "Size.", ["kind"], buckets=(1, 2), registry=registry)
    histogram.labels("a").observe(1)
    histogram.labels("b").observe(5)
    (converted,) = bridge.to_otel(registry.collect(), start=1, now=2)
    counts = {p.attributes["kind"]: list(p.bucket_counts) for p in converted.data.data_points}
    assert counts == {"a": [1, 0, 0], "b": [0, 0, 1]}


async def test_a_service_s_own_instruments_are_scraped() -> None:
    telemetry = Telemetry("test", "0")
    telemetry.meter.create_counter("aigw.requests").add(2, {"route": "a"})
    telemetry.meter.create_up_down_counter("aigw.open").add(3)
    telemetry.meter.create_histogram("aigw.size", unit="By").record(7, {"route": "a"})
    text = telemetry.scrape()[0].decode()
    assert 'aigw_requests_total{route="a"} 2.0' in text
    assert "aigw_open 3.0" in text
    assert 'aigw_size_bytes_count{route="a"} 1.0' in text
    assert 'aigw_size_bytes_bucket{le="10.0",route="a"} 1.0' in text
    await telemetry.shutdown()


async def test_switched_off_there_are_no_spans_but_metrics() -> None:
    telemetry = create(TelemetrySettings(), "test", "0")
    assert not telemetry.tracing
    with telemetry.tracer.start_as_current_span("x") as span:
        assert not span.is_recording()
    assert b"process_cpu_seconds_total" in telemetry.scrape()[0]
    await telemetry.shutdown()


async def test_spans_go_to_a_file_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "spans.jsonl"
    telemetry = create(TelemetrySettings(exporter="file", file=path), "test", "1.2")
    with telemetry.tracer.start_as_current_span("outer"), telemetry.tracer.start_as_current_span("inner"):
        pass
    await telemetry.flush()
    inner, outer = [json.loads(line) for line in path.read_text().splitlines()]
    assert (inner["name"], outer["name"]) == ("inner", "outer")
    assert inner["parent_id"] == outer["context"]["span_id"]
    assert inner["context"]["trace_id"] == outer["context"]["trace_id"]
    assert outer["resource"]["attributes"]["service.name"] == "test"
    assert outer["resource"]["attributes"]["service.version"] == "1.2"
    await telemetry.shutdown()


def test_a_folder_gets_one_file_for_each_process(tmp_path: Path) -> None:
    assert span_file(tmp_path, "aigw").parent == tmp_path
    assert span_file(tmp_path, "aigw").name.startswith("aigw-")
    assert span_file(tmp_path / "new", "aigw").parent == tmp_path / "new"
    assert span_file(tmp_path / "spans.jsonl", "aigw") == tmp_path / "spans.jsonl"


def test_writers_share_a_file_without_mixing_lines(tmp_path: Path) -> None:
    recorder, path = SpanRecorder(), tmp_path / "spans.jsonl"
    tracer = recorder.provider().get_tracer("t")
    for number in range(50):
        tracer.start_span(f"span-{number}", attributes={"pad": "x" * 2000}).end()
    exporters = [JsonLinesExporter(path) for _ in range(4)]
    threads = [threading.Thread(target=e.export, args=(recorder.spans,)) for e in exporters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for exporter in exporters:
        exporter.shutdown()
    lines = path.read_text().splitlines()
    assert len(lines) == 200
    assert all(json.loads(line)["name"].startswith("span-") for line in lines)


async def test_console_spans_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = create(TelemetrySettings(exporter="console"), "test", "0")
    telemetry.tracer.start_span("seen").end()
    await telemetry.shutdown()
    assert json.loads(capsys.readouterr().err)["name"] == "seen"


async def test_a_ratio_of_zero_records_nothing_but_what_a_caller_records() -> None:
    recorder = SpanRecorder()
    telemetry = Telemetry("test", "0", tracer_provider=recorder.provider(sample_ratio=0.0))
    telemetry.start_server_span("mine", None, None).end()
    telemetry.start_server_span("theirs", GOOD, None).end()
    assert [span.name for span in recorder.spans] == ["theirs"]
    await telemetry.shutdown()


@pytest.fixture
def root() -> logging.Logger:
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_logs_are_lines_of_json_with_trace_ids(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(TelemetrySettings(), service="aigw")
    recorder = SpanRecorder()
    with recorder.provider().get_tracer("t").start_as_current_span("s") as span:
        logs.get_logger("penstock.a").info("route changed", route="r", weight=10)
        logging.getLogger("third.party").warning("plain %s", "text")
    try:
        raise KeyError("x")
    except KeyError as error:
        logs.get_logger("penstock.a").error("failed", exc_info=error)
    logs.get_logger("penstock.a").debug("not shown")
    first, second, third = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["event"], first["route"], first["weight"]) == ("route changed", "r", 10)
    assert (first["service"], first["level"], first["logger"]) == ("aigw", "info", "penstock.a")
    assert first["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert (second["event"], second["level"]) == ("plain text", "warning")
    assert "trace_id" in second
    assert "KeyError: 'x'" in third["exception"]
    assert "trace_id" not in third


def test_logs_for_people(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(TelemetrySettings(log_format="console"), service="aigw")
    logs.get_logger("penstock.a").info("route changed", route="r")
    assert "route changed" in capsys.readouterr().err


async def test_flushing_does_not_block_the_loop(tmp_path: Path) -> None:
    telemetry = create(TelemetrySettings(exporter="file", file=tmp_path / "x.jsonl"), "test", "0")
    telemetry.tracer.start_span("x").end()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    await telemetry.flush()
    task.cancel()
    assert ticks > 1
    await telemetry.shutdown()
