"""Logs of replicas: appended by the replicas themselves, cut to size by us, read from the end."""

import os
from pathlib import Path

from dplo.app.ports import LogTail

_BLOCK = 64 * 1024
_LINE_LIMIT = 16 * 1024


def is_larger(log: Path, limit: int) -> bool:
    """Whether a log has outgrown its limit in bytes."""
    try:
        return log.stat().st_size > limit
    except FileNotFoundError:
        return False


def rotate(log: Path, kept: int) -> None:
    """Moves what is there aside.

    The replica keeps the file open in append mode, so the content is copied and the file cut (what is written
    in between is lost, a few lines at most).
    """
    for number in range(kept - 1, 0, -1):
        older = _numbered(log, number)
        if older.exists():
            older.replace(_numbered(log, number + 1))
    with log.open("rb") as source, _numbered(log, 1).open("wb") as target:
        while block := source.read(_BLOCK):
            target.write(block)
    os.truncate(log, 0)


def tail(log: Path, lines: int) -> LogTail:
    """The last lines of a log and, where it was just cut, of the one before it."""
    found, more = _tail_of(log, lines)
    if len(found) < lines and _numbered(log, 1).exists():
        older, more = _tail_of(_numbered(log, 1), lines - len(found))
        found = [*older, *found]
    return LogTail(tuple(found), more)


def remove(log: Path, kept: int) -> None:
    """Takes a log and its older parts away."""
    log.unlink(missing_ok=True)
    for number in range(1, kept + 1):
        _numbered(log, number).unlink(missing_ok=True)


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _tail_of(path: Path, lines: int) -> tuple[list[str], bool]:
    """The last lines of one file, and whether there are more before them."""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            content = b""
            while position > 0 and content.count(b"\n") <= lines:
                start = max(0, position - _BLOCK)
                file.seek(start)
                content = file.read(position - start) + content
                position = start
    except FileNotFoundError:
        return [], False
    texts = content.decode("utf-8", errors="replace").splitlines()
    cut = [text[:_LINE_LIMIT] for text in texts[-lines:]] if lines else []
    return cut, position > 0 or len(texts) > lines
