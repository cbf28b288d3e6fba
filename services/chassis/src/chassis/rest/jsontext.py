"""JSON text: reading with the place of a mistake, writing compactly."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from chassis import errors


class _Refused(ValueError):
    """A value that JSON parsers let through and the specification does not."""


def loads(text: bytes, what: str = "the request body") -> Any:
    """Parse JSON strictly: UTF-8, no duplicate members, no NaN.

    Raises `errors.InvalidArgument` with line and column.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(text[: error.start].decode("utf-8", "replace"))
        raise _malformed(what, f"not UTF-8 at line {line}, column {column}", line, column) from error
    try:
        return _DECODER.decode(decoded)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise _malformed(what, problem, error.lineno, error.colno) from error
    except _Refused as error:
        raise _malformed(what, str(error)) from error
    except RecursionError as error:
        raise _malformed(what, "nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise _malformed(what, "a number is too long") from error


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return orjson.dumps(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"member {twice!r} is given twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f'{name} is not JSON; write it as the string "{name}"')


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _place(before: str) -> tuple[int, int]:
    lines = before.split("\n")
    return len(lines), len(lines[-1]) + 1


def _malformed(what: str, problem: str, line: int = 0, column: int = 0) -> errors.InvalidArgument:
    place = {"line": str(line), "column": str(column)} if line else None
    return errors.InvalidArgument(
        f"{what} is not valid JSON: {problem}", reason="MALFORMED_JSON", metadata=place
    )
