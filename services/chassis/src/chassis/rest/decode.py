"""JSON to protobuf messages, with every refusal naming its field.

`google.protobuf.json_format` reads JSON well but reports its own recursion instead of a field path, stops at
the first mistake and takes lists or strings where objects belong, so requests are read here and `json_format`
is kept for what has no fields of its own to name (Any, Struct, Value, ListValue). The property tests hold the
two to the same result for everything valid.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from chassis import errors
from chassis.errors import FieldViolation
from chassis.rest import values
from chassis.rest.descriptors import field_of, is_map, message_of

MAX_DEPTH = 100
_MAX_VIOLATIONS = 20
_DYNAMIC = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue"))
_VALUE = "google.protobuf.Value"
_NULL_VALUE = "google.protobuf.NullValue"


class _TooMany(Exception):
    """Enough was found wrong; the rest is not looked for."""


class Decoder:
    """Reads JSON values into messages of one pool; keeps a name table per message type."""

    def __init__(self, pool: DescriptorPool, *, ignore_unknown_fields: bool = False) -> None:
        self.pool = pool
        self.ignore_unknown = ignore_unknown_fields
        self._fields: dict[str, dict[str, Field]] = {}

    def message(self, value: Any, message: Message, path: str = "") -> None:
        """Merge a JSON value into a message.

        Raises `errors.InvalidArgument` with one violation per wrong field.
        """
        reading = _Reading(self)
        with suppress(_TooMany):
            reading.message(value, message, path, 1)
        reading.finish()

    def field(self, value: Any, message: Message, field: Field) -> None:
        """Read a JSON value into one field of a message. Raises `errors.InvalidArgument`."""
        reading = _Reading(self)
        with suppress(_TooMany):
            reading.field(value, message, field, field.name, 1)
        reading.finish()

    def names(self, descriptor: Descriptor) -> dict[str, Field]:
        """Fields of a message type by JSON name and by contract name."""
        table = self._fields.get(descriptor.full_name)
        if table is None:
            table = {field.name: field for field in descriptor.fields}
            table.update({field.json_name: field for field in descriptor.fields})
            self._fields[descriptor.full_name] = table
        return table


class _Reading:
    """One pass over one JSON value, collecting what is wrong."""

    def __init__(self, decoder: Decoder) -> None:
        self._names = decoder.names
        self._pool = decoder.pool
        self._ignore_unknown = decoder.ignore_unknown
        self.violations: list[FieldViolation] = []

    def message(self, value: Any, message: Message, path: str, depth: int) -> None:
        name = message.DESCRIPTOR.full_name
        if depth > MAX_DEPTH:
            self._wrong(".".join(path.split(".")[:3]), f"nested deeper than {MAX_DEPTH} levels", "TOO_DEEP")
            raise _TooMany
        try:
            if name in values.TEXTUAL:
                values.textual_from_json(message, value)
            elif name in values.WRAPPERS:
                values.set_wrapper(message, values.from_json(field_of(message, "value"), value))
            elif name in _DYNAMIC:
                self._dynamic(value, message)
            elif isinstance(value, dict):
                self._object(value, message, path, depth)
            else:
                raise ValueError(f"expected an object ({message.DESCRIPTOR.name}), got {values.shown(value)}")
        except ValueError as error:
            self._wrong(path, str(error))

    def _dynamic(self, value: Any, message: Message) -> None:
        """Messages whose JSON has no fixed fields; these are the ones json_format is asked for."""
        if message.DESCRIPTOR.name in ("Any", "Struct") and not isinstance(value, dict):
            raise ValueError(f"expected an object ({message.DESCRIPTOR.name}), got {values.shown(value)}")
        try:
            json_format.ParseDict(value, message, self._ignore_unknown, self._pool, MAX_DEPTH)
        except (json_format.ParseError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a valid {message.DESCRIPTOR.name}: {error}") from error

    def _object(self, value: dict[str, Any], message: Message, path: str, depth: int) -> None:
        fields = self._names(cast(Descriptor, message.DESCRIPTOR))
        seen: dict[int, str] = {}
        chosen: dict[str, str] = {}
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            field = fields.get(key)
            if field is None:
                if not self._ignore_unknown:
                    self._wrong(where, f"{message.DESCRIPTOR.full_name} has no such field", "UNKNOWN_FIELD")
                continue
            where = f"{path}.{field.name}" if path else field.name
            if field.number in seen:
                self._wrong(
                    where, f"given twice, as {seen[field.number]!r} and as {key!r}", "DUPLICATE_FIELD"
                )
                continue
            seen[field.number] = key
            oneof = field.containing_oneof
            if oneof is not None and item is not None:
                if oneof.name in chosen:
                    self._wrong(
                        where, f"{chosen[oneof.name]!r} and {key!r} exclude each other", "ONEOF_CONFLICT"
                    )
                    continue
                chosen[oneof.name] = key
            self.field(item, message, field, where, depth)

    def field(self, value: Any, message: Message, field: Field, path: str, depth: int) -> None:
        if value is None and not _takes_null(field):
            message.ClearField(field.name)
        elif field.is_repeated:
            if field.message_type is not None and is_map(field.message_type):
                self._map(value, getattr(message, field.name), field, path, depth)
            else:
                self._list(value, getattr(message, field.name), field, path, depth)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            self.message(value, child, path, depth + 1)
        else:
            try:
                setattr(message, field.name, 0 if value is None else values.from_json(field, value))
            except ValueError as error:
                self._wrong(path, str(error))

    def _list(self, value: Any, items: Any, field: Field, path: str, depth: int) -> None:
        if not isinstance(value, list):
            self._wrong(path, f"expected a list, got {values.shown(value)}")
            return
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if item is None and not _takes_null(field):
                self._wrong(where, "null cannot be an element of a list")
            elif field.message_type is not None:
                self.message(item, items.add(), where, depth + 1)
            else:
                try:
                    items.append(0 if item is None else values.from_json(field, item))
                except ValueError as error:
                    self._wrong(where, str(error))

    def _map(self, value: Any, items: Any, field: Field, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._wrong(path, f"expected an object (map), got {values.shown(value)}")
            return
        key_field = field_of(message_of(field), "key")
        value_field = field_of(message_of(field), "value")
        for text, item in value.items():
            where = f"{path}[{values.shown(text)}]"
            try:
                key = values.from_text(key_field, text)
                if item is None and not _takes_null(value_field):
                    raise ValueError("null cannot be the value of a map entry")
                if value_field.message_type is not None:
                    self.message(item, items[key], where, depth + 1)
                else:
                    items[key] = 0 if item is None else values.from_json(value_field, item)
            except ValueError as error:
                self._wrong(where, str(error))

    def finish(self) -> None:
        """Raise when anything was wrong."""
        if self.violations:
            raise invalid_fields(self.violations)

    def _wrong(self, path: str, description: str, reason: str = "INVALID_VALUE") -> None:
        self.violations.append(FieldViolation(path, description, reason))
        if len(self.violations) >= _MAX_VIOLATIONS:
            raise _TooMany


def invalid_fields(violations: list[FieldViolation]) -> errors.InvalidArgument:
    """The error that names each wrong field."""
    first = violations[0]
    place = f"field {first.field!r}" if first.field else "the request body"
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return errors.InvalidArgument(
        f"{place}: {first.description}{more}",
        reason=first.reason if len({v.reason for v in violations}) == 1 else "INVALID_FIELDS",
        metadata={"field": first.field} if first.field else None,
        violations=violations,
    )


def _takes_null(field: Field) -> bool:
    if field.message_type is not None:
        return bool(field.message_type.full_name == _VALUE) and not is_map(field.message_type)
    return field.enum_type is not None and bool(field.enum_type.full_name == _NULL_VALUE)
