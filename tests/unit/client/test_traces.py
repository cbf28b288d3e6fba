"""Span files of several processes, joined into traces."""

import json
from pathlib import Path

import pytest
from penstock_client.local import traces
from rich.console import Console


def line(
    span: str, parent: str | None, service: str, *, trace: str = "a", start: int = 0, code: str = "UNSET"
) -> str:
    return json.dumps(
        {
            "name": f"{service}/{span}",
            "context": {"trace_id": f"0x{trace}", "span_id": f"0x{span}"},
            "parent_id": f"0x{parent}" if parent else None,
            "start_time": f"2026-01-01T00:00:{start:02d}.000000Z",
            "end_time": f"2026-01-01T00:00:{start + 1:02d}.500000Z",
            "attributes": {},
            "status": {"status_code": code},
            "resource": {"attributes": {"service.name": service}},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "client.jsonl").write_text(line("1", None, "client") + "\n")
    (tmp_path / "aigw.jsonl").write_text(line("2", "1", "aigw", start=1) + "\n")
    (tmp_path / "mds.jsonl").write_text(
        "\n".join(
            [
                line("4", "3", "mds", start=3, code="ERROR"),
                line("3", "2", "mds", start=2),
                line("3", "2", "mds", start=2),
                line("9", "8", "mds", trace="b", start=9),
                '{"name": "half wri',
            ]
        )
    )
    return tmp_path


def test_spans_of_all_processes_are_joined_by_trace(folder: Path) -> None:
    first, second = traces.load(folder)

    assert [span.span_id for span in first.spans] == ["1", "2", "3", "4"]
    assert [span.span_id for span in first.roots] == ["1"]
    assert [ancestor.service for ancestor in first.ancestors(first.spans[3])] == ["mds", "aigw", "client"]
    assert first.orphans == ()
    assert [span.span_id for span in second.orphans] == ["9"]


def test_a_span_that_was_told_twice_counts_once(folder: Path) -> None:
    trace = traces.find(folder, "a")

    assert trace is not None
    assert len(trace.find("3")) == 1


def test_a_trace_that_is_not_there_is_none(folder: Path) -> None:
    assert traces.find(folder, "c") is None


def test_the_tree_shows_service_name_time_and_failure(folder: Path) -> None:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(traces.load(folder)[0].tree())

    shown = capture.get().splitlines()
    assert "client" in shown[1]
    assert "1500.00 ms" in shown[1]
    assert "failed" in shown[4]
    assert [text.index("─ ") for text in shown[1:]] == [2, 6, 10, 14]
