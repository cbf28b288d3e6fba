"""Span exporters of our own set-up, for the `penstock` command and scripts that have no OpenTelemetry set-up.

`PENSTOCK_TRACES` says where spans go: `off` (the default), `console` (standard error), `file:PATH` (one
JSON span a line; a folder gets one file per process), `otlp` or `otlp:HOST:PORT` (an OpenTelemetry
collector).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from penstock_client.errors import InvalidArgument

SERVICE_NAME = "penstock-client"


class LineExporter(SpanExporter):
    """Writes each span as one line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Appends the spans; whole lines only."""
        text = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        with self._lock:
            self._stream.write(text)
            self._stream.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file; standard error stays open."""
        if self._stream is not sys.stderr:
            self._stream.close()


def provider(destination: str) -> TracerProvider | None:
    """A tracer provider that exports to `destination`, or None for `off`. The caller shuts it down."""
    kind, _, where = destination.partition(":")
    if kind in {"", "off"}:
        return None
    made = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}), shutdown_on_exit=False)
    if kind == "console":
        made.add_span_processor(SimpleSpanProcessor(LineExporter(sys.stderr)))
    elif kind == "file" and where:
        made.add_span_processor(SimpleSpanProcessor(LineExporter(_open(Path(where)))))
    elif kind == "otlp":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=where, insecure=True) if where else OTLPSpanExporter()
        made.add_span_processor(BatchSpanProcessor(exporter))
    else:
        raise InvalidArgument(
            f"PENSTOCK_TRACES is {destination!r}; write off, console, file:PATH, otlp or otlp:HOST:PORT",
            reason="SETTINGS_INVALID",
        )
    return made


def _open(path: Path) -> TextIO:
    try:
        if path.is_dir():
            path = path / f"{SERVICE_NAME}-{os.getpid()}.jsonl"
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(
            f"cannot write spans to {path}: {error.strerror}", reason="SETTINGS_INVALID"
        ) from error
