"""One scalar at a time: from JSON values and from text (path, query) to what a protobuf field takes.

Follows the ProtoJSON mapping, more strictly than `google.protobuf.json_format` where that lets mistakes
through (base64 with foreign characters, integers with underscores or blanks). Every refusal is a ValueError
whose text says what was expected and what came.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from chassis.rest.descriptors import enum_names, field_of

_INTEGERS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1, "a 32-bit integer"),
    Field.TYPE_SINT32: (-(2**31), 2**31 - 1, "a 32-bit integer"),
    Field.TYPE_SFIXED32: (-(2**31), 2**31 - 1, "a 32-bit integer"),
    Field.TYPE_UINT32: (0, 2**32 - 1, "an unsigned 32-bit integer"),
    Field.TYPE_FIXED32: (0, 2**32 - 1, "an unsigned 32-bit integer"),
    Field.TYPE_INT64: (-(2**63), 2**63 - 1, "a 64-bit integer"),
    Field.TYPE_SINT64: (-(2**63), 2**63 - 1, "a 64-bit integer"),
    Field.TYPE_SFIXED64: (-(2**63), 2**63 - 1, "a 64-bit integer"),
    Field.TYPE_UINT64: (0, 2**64 - 1, "an unsigned 64-bit integer"),
    Field.TYPE_FIXED64: (0, 2**64 - 1, "an unsigned 64-bit integer"),
}
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOAT_MAX = (
    3.4028235677973366e38  # halfway between the largest float32 and the next: what still rounds to it
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")

WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
# Messages that JSON writes as one string.
TEXTUAL = {
    "google.protobuf.Timestamp": "an RFC 3339 time such as 2026-11-22T10:30:00Z",
    "google.protobuf.Duration": 'seconds with an "s", such as 1.5s',
    "google.protobuf.FieldMask": "field paths separated by commas, such as displayName,labels",
}


def from_json(field: Field, value: Any) -> Any:
    """Convert a JSON value for a scalar or enum field. Raises ValueError."""
    kind = field.type
    if kind in _INTEGERS:
        return _integer(value, *_INTEGERS[kind])
    if kind == Field.TYPE_STRING:
        if not isinstance(value, str):
            raise _unexpected("a string", value)
        if _SURROGATE.search(value):
            raise ValueError("expected a string of Unicode characters, got an unpaired surrogate")
        return value
    if kind == Field.TYPE_BOOL:
        if not isinstance(value, bool):
            raise _unexpected("true or false", value)
        return value
    if kind in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return _float(value, single=kind == Field.TYPE_FLOAT)
    if kind == Field.TYPE_BYTES:
        return _bytes(value)
    if kind == Field.TYPE_ENUM:
        return _enum(field, value)
    raise ValueError(f"field type {kind} cannot be given as one value")


def from_text(field: Field, text: str) -> Any:
    """Convert the text of a path variable or query parameter for a scalar or enum field.

    Raises ValueError.
    """
    if field.type == Field.TYPE_BOOL:
        if text in ("true", "false"):
            return text == "true"
        raise _unexpected("true or false", text)
    return from_json(field, text)


def message_from_text(message: Message, text: str) -> None:
    """Fill a message that has a text form (a wrapper, Timestamp, Duration, FieldMask). Raises ValueError."""
    name = message.DESCRIPTOR.full_name
    if name in WRAPPERS:
        set_wrapper(message, from_text(field_of(message, "value"), text))
    elif name == "google.protobuf.FieldMask" and "_" in text:
        # ProtoJSON writes paths in lowerCamelCase; in a URL people write them as the contract does, so both
        # are taken.
        message.paths.extend(path.strip() for path in text.split(","))  # type: ignore[attr-defined]
    else:
        textual_from_json(message, text)


def textual_from_json(message: Message, value: Any) -> None:
    """Fill a Timestamp, Duration or FieldMask from its JSON string. Raises ValueError."""
    expected = TEXTUAL[message.DESCRIPTOR.full_name]
    if not isinstance(value, str):
        raise _unexpected(expected, value)
    try:
        message.FromJsonString(value)  # type: ignore[attr-defined]
    except (ValueError, OverflowError) as error:
        raise _unexpected(expected, value) from error


def set_wrapper(message: Message, value: Any) -> None:
    """Set the value of a wrapper message; it is present even when the value is the default."""
    message.value = value  # type: ignore[attr-defined]
    message.SetInParent()


def shown(value: Any) -> str:
    """A JSON value for an error text, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def _unexpected(expected: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected}, got {shown(value)}")


def _integer(value: Any, least: int, most: int, expected: str) -> int:
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and len(value) <= 64:
        if _WHOLE.fullmatch(value):
            number = int(value)
        elif _DECIMAL.fullmatch(value) and (floating := float(value)).is_integer():
            number = int(floating)
    if number is None:
        raise _unexpected(expected, value)
    if not least <= number <= most:
        raise ValueError(f"expected {expected} ({least} to {most}), got {shown(value)}")
    return number


def _float(value: Any, *, single: bool) -> float:
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str):
        if value in _SPECIAL_FLOATS:
            return _SPECIAL_FLOATS[value]
        if _DECIMAL.fullmatch(value):
            number = float(value)
    if number is None:
        raise _unexpected("a number", value)
    if math.isinf(number) or (single and abs(number) >= _FLOAT_MAX):
        raise ValueError(f"{shown(value)} is beyond the range of a {'float' if single else 'double'}")
    return number


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        raise _unexpected("base64 (standard or URL-safe)", value)
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise _unexpected("base64 (standard or URL-safe)", value) from error


def _enum(field: Field, value: Any) -> int:
    enum = cast(EnumDescriptor, field.enum_type)
    if isinstance(value, str):
        known = enum.values_by_name.get(value)
        if known is not None:
            return int(known.number)
    if isinstance(value, bool) or not (
        isinstance(value, int)
        or (isinstance(value, float) and value.is_integer())
        or (isinstance(value, str) and len(value) <= 12 and _WHOLE.fullmatch(value))
    ):
        raise _unexpected(f"one of {enum_names(enum)} or its number", value)
    number = int(value)
    if not -(2**31) <= number < 2**31 or (enum.is_closed and number not in enum.values_by_number):
        raise _unexpected(f"one of {enum_names(enum)} or its number", value)
    return number
