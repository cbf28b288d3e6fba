"""What a new declaration changes of the old one, field by field."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dplo.domain.spec import Spec
from dplo.domain.traffic import Shares


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field; "" is "not there"."""

    path: str
    before: str
    after: str


def find_changes(before: Spec | None, after: Spec) -> tuple[FieldChange, ...]:
    """Every field that differs, in order of path."""
    old = dict(_flatten("", before)) if before is not None else {}
    new = dict(_flatten("", after))
    paths = sorted(set(old) | set(new))
    return tuple(
        FieldChange(path, old.get(path, ""), new.get(path, ""))
        for path in paths
        if old.get(path, "") != new.get(path, "")
    )


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Shares):
        for version, part in value.parts:
            yield f'{path}["{version}"].percent', f"{part / 100:g}"
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _flatten(f"{path}.{field.name}" if path else field.name, getattr(value, field.name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _flatten_item(path, index, item)
    elif value is not None and value != "" and value != b"":
        yield (
            path,
            f"{len(value)} bytes, {zlib.crc32(value):08x}" if isinstance(value, bytes) else _text(value),
        )


def _flatten_item(path: str, index: int, item: Any) -> Iterator[tuple[str, str]]:
    """Versions by name and pairs by key, so that an order does not look like a change."""
    if hasattr(item, "version"):
        yield from _flatten(f'{path}["{item.version}"]', item)
    elif isinstance(item, tuple) and len(item) == 2:
        yield f'{path}["{item[0]}"]', str(item[1])
    else:
        yield from _flatten(f"{path}[{index}]", item)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
