"""Tables for people, JSON for programs, progress on standard error where somebody can see it."""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

_WIDE = 10_000


class Format(enum.StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Format, typer.Option("--output", "-o", help="table for people, json for programs.", show_default=True)
]


def out() -> Console:
    """Standard output; not wrapped where no person reads it."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)


@functools.cache
def err() -> Console:
    """Standard error, for what is not the result; one for all, as lines have to pass a spinner by."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing found") -> None:
    """A table without lines, which people read and `awk` splits."""
    console = out()
    if not rows:
        err().print(empty, style="dim")
        return
    grid = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column.upper(), no_wrap=not console.is_terminal, overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    if console.is_terminal:
        console.print(grid)
        return
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():
        print(line.rstrip())


def message_json(message: Message) -> Any:
    """A message as JSON values, in the form of the REST face."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def print_json(value: Any) -> None:
    """JSON on standard output, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_message(message: Message) -> None:
    """One message as JSON."""
    print_json(message_json(message))


def print_messages(key: str, messages: Sequence[Message]) -> None:
    """A list of messages as JSON, under its name as in the REST face."""
    print_json({key: [message_json(message) for message in messages]})


def age(timestamp: Timestamp, *, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    if not timestamp.seconds:
        return "-"
    seconds = ((now or datetime.now(UTC)) - timestamp.ToDatetime(tzinfo=UTC)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def moment(timestamp: Timestamp) -> str:
    """Local time of day with date."""
    if not timestamp.seconds:
        return "-"
    return timestamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """Bytes in a readable unit."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def word(kind: Any, value: int, prefix: str) -> str:
    """An enum value as a word: `ROLLOUT_STATE_COMPLETE` is `complete`."""
    name: str = kind.Name(value) if value in kind.values() else str(value)
    return name.removeprefix(prefix).removeprefix("_").lower().replace("_", " ")


def mapping(values: Mapping[str, object]) -> str:
    """`a=1, b=2`."""
    return ", ".join(f"{key}={value}" for key, value in values.items())


@contextlib.contextmanager
def transfer(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of bytes: a bar on a terminal, one line when done elsewhere."""
    console = err()
    if not console.is_terminal:
        begun, seen = time.monotonic(), [0]

        def count(done: int, total: int) -> None:
            seen[0] = done

        yield count
        console.print(f"{title}: {size(seen[0])} in {time.monotonic() - begun:.1f} s")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
