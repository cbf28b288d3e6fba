"""Where access log lines go: a file that is rotated by size, or a stream."""

import contextlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

from chassis import errors

from aigw.app.ports import AccessSink


class FileSink:
    """Appends to a file. When it would exceed `max_bytes` it becomes `NAME.1`, that one `NAME.2`, and so on
    up to `backups`; 0 bytes means never.
    """

    def __init__(self, path: Path, *, max_bytes: int, backups: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise errors.FailedPrecondition(
                f"the access log {path} cannot be written: {error.strerror}",
                reason="ACCESS_LOG_UNWRITABLE",
                metadata={"path": str(path)},
            ) from error
        self._size = self._file.tell() or os.fstat(self._file.fileno()).st_size

    def write(self, lines: bytes) -> None:
        """Appends whole lines, in a fresh file if they no longer fit."""
        if self._max_bytes and self._size and self._size + len(lines) > self._max_bytes:
            # A file that cannot be moved is written on: lines beyond its size are better than none.
            with contextlib.suppress(OSError):
                self._rotate()
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a disk that fills up takes a part first
        except OSError:
            # No half line stays, or the next would be glued to it.
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rotate(self) -> None:
        for number in range(self._backups, 0, -1):
            older = self._name(number - 1)
            if older.exists():
                older.replace(self._name(number))
        following = self._path.open("ab" if self._backups else "wb", buffering=0)
        self._file.close()
        self._file, self._size = following, 0

    def _name(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class StreamSink:
    """Writes to a binary stream, by default standard output."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream

    def write(self, lines: bytes) -> None:
        """Writes whole lines."""
        stream = self._stream or sys.stdout.buffer
        stream.write(lines)
        stream.flush()

    def close(self) -> None:
        """The stream belongs to somebody else."""


def open_sink(kind: str, path: Path, *, max_bytes: int, backups: int) -> AccessSink | None:
    """The sink of a setting: `file`, `stdout` or `off`."""
    if kind == "off":
        return None
    if kind == "stdout":
        return StreamSink()
    if kind == "file":
        return FileSink(path, max_bytes=max_bytes, backups=backups)
    raise errors.InvalidArgument(
        f"there is no access log sink {kind!r}; there are file, stdout and off", reason="BACKEND_UNKNOWN"
    )
