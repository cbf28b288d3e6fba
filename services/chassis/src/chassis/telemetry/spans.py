"""Span exporters that need no collector: JSON lines in a file, one span a line, and the same on stderr.

A line is OpenTelemetry's own JSON of a span (`ReadableSpan.to_json`): `name`, `context.trace_id`,
`context.span_id`, `parent_id`, `start_time`, `end_time`, `attributes`, `resource.attributes`, and so on.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


def span_file(path: Path, service: str) -> Path:
    """Where a process writes its spans: the file itself, or one file per process inside a folder."""
    if path.is_dir() or path.suffix == "":
        return path / f"{service}-{os.getpid()}.jsonl"
    return path


class JsonLinesExporter(SpanExporter):
    """Appends spans to a file; each batch is one write in append mode, so processes may share the file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes one line for each span."""
        lines = _lines(spans).encode()
        with self._lock:
            if self._file < 0:
                return SpanExportResult.FAILURE
            while lines:
                lines = lines[os.write(self._file, lines) :]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here: what was exported is written."""
        return True


class ConsoleExporter(SpanExporter):
    """Writes spans as JSON lines to a text stream, by default stderr."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes one line for each span."""
        stream = self._stream or sys.stderr
        stream.write(_lines(spans))
        stream.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """The stream belongs to somebody else."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Every export is flushed."""
        return True


def _lines(spans: Sequence[ReadableSpan]) -> str:
    return "".join(span.to_json(indent=None) + "\n" for span in spans)
