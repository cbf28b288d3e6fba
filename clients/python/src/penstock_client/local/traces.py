"""Traces out of the span files of several processes: joined by trace id, checked, and drawn as a tree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.tree import Tree


@dataclass(frozen=True)
class SpanRecord:
    """One span as it was written."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    start: datetime
    end: datetime
    attributes: Mapping[str, Any]
    failed: bool

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start).total_seconds() * 1000


@dataclass(frozen=True)
class Trace:
    """The spans of one trace, by start."""

    trace_id: str
    spans: tuple[SpanRecord, ...]

    @property
    def roots(self) -> tuple[SpanRecord, ...]:
        """Spans without a parent."""
        return tuple(span for span in self.spans if span.parent_id is None)

    @property
    def orphans(self) -> tuple[SpanRecord, ...]:
        """Spans whose parent is in no file: a sign of a broken chain."""
        known = {span.span_id for span in self.spans}
        return tuple(
            span for span in self.spans if span.parent_id is not None and span.parent_id not in known
        )

    def children(self, of: SpanRecord) -> tuple[SpanRecord, ...]:
        """Direct children, by start."""
        return tuple(span for span in self.spans if span.parent_id == of.span_id)

    def ancestors(self, of: SpanRecord) -> Iterator[SpanRecord]:
        """Parent, its parent, and so on."""
        by_id = {span.span_id: span for span in self.spans}
        while of.parent_id is not None and of.parent_id in by_id:
            of = by_id[of.parent_id]
            yield of

    def find(self, name: str, service: str | None = None) -> tuple[SpanRecord, ...]:
        """Spans whose name ends in `name`."""
        return tuple(s for s in self.spans if s.name.endswith(name) and service in (None, s.service))

    def tree(self) -> Tree:
        """Drawn for a terminal: service, name, time."""
        drawing = Tree(f"trace {self.trace_id}", guide_style="dim")
        for span in (*self.roots, *self.orphans):
            self._draw(span, drawing)
        return drawing

    def _draw(self, span: SpanRecord, into: Tree) -> None:
        mark = " [red]failed[/red]" if span.failed else ""
        branch = into.add(
            f"[cyan]{span.service:<10}[/cyan] {span.name}  [dim]{span.milliseconds:.2f} ms[/dim]{mark}"
        )
        for child in self.children(span):
            self._draw(child, branch)


def load(folder: Path) -> Sequence[Trace]:
    """All traces in the span files of a folder, the newest last. A line that is half written is left out."""
    found: dict[str, dict[str, SpanRecord]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                span = _record(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
            # DPLO may tell a span twice when it was killed in between.
            found.setdefault(span.trace_id, {})[span.span_id] = span
    traces = [
        Trace(key, tuple(sorted(spans.values(), key=lambda span: span.start))) for key, spans in found.items()
    ]
    return sorted(traces, key=lambda trace: trace.spans[0].start)


def find(folder: Path, trace_id: str) -> Trace | None:
    """One trace."""
    return next((trace for trace in load(folder) if trace.trace_id == trace_id), None)


def _record(document: Mapping[str, Any]) -> SpanRecord:
    context = document["context"]
    return SpanRecord(
        trace_id=context["trace_id"].removeprefix("0x"),
        span_id=context["span_id"].removeprefix("0x"),
        parent_id=document["parent_id"].removeprefix("0x") if document["parent_id"] else None,
        name=document["name"],
        service=document["resource"]["attributes"].get("service.name", "?"),
        start=_time(document["start_time"]),
        end=_time(document["end_time"]),
        attributes=document["attributes"],
        failed=document["status"]["status_code"] == "ERROR",
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
