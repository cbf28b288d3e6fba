"""Query parameters to request fields: dotted paths over nested messages, repeated scalars, text forms of
well-known types; contract names and JSON names alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from chassis import errors
from chassis.errors import FieldViolation
from chassis.rest import values
from chassis.rest.bindings import Binding
from chassis.rest.decode import invalid_fields
from chassis.rest.descriptors import is_map

_MAX_PARAMETERS = 1000
_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a parameter goes; ``problem`` says why it goes nowhere."""

    fields: tuple[FieldDescriptor, ...] = ()
    problem: str = ""
    reason: str = "INVALID_VALUE"

    @property
    def path(self) -> str:
        return ".".join(field.name for field in self.fields)


class QueryBinder:
    """Sets the request fields that the query of one binding may set: all but those of the path and of the
    body.
    """

    def __init__(self, binding: Binding, *, ignored: frozenset[str] = frozenset()) -> None:
        self._binding = binding
        self._ignored = ignored
        self._bound = {variable.name for variable in binding.variables}
        self._targets: dict[str, _Target] = {}

    def bind(self, raw_query: bytes, message: Message) -> None:
        """Set fields from an encoded query string.

        Raises `errors.InvalidArgument` naming each wrong parameter.
        """
        violations: list[FieldViolation] = []
        given: dict[str, str] = {}
        chosen: dict[str, str] = {}
        for name, text in parse_query(raw_query):
            if name in self._ignored:
                continue
            target = self._target(name)
            problem = target.problem
            if not problem and not target.fields[-1].is_repeated:
                if target.path in given:
                    problem = "given more than once, and the field is not repeated"
                else:
                    problem = _oneof_conflict(target, name, chosen)
                given[target.path] = name
            if not problem:
                try:
                    _set(message, target.fields, text)
                    continue
                except ValueError as error:
                    problem = str(error)
            violations.append(FieldViolation(name, problem, target.reason))
        if violations:
            raise _naming_parameters(violations)

    def _target(self, name: str) -> _Target:
        found = self._targets.get(name)
        if found is None:
            found = self._resolve(name)
            if (
                len(self._targets) < _MAX_REMEMBERED
            ):  # unknown names come from callers: keep the table bounded
                self._targets[name] = found
        return found

    def _resolve(self, name: str) -> _Target:
        binding = self._binding
        message: Descriptor | None = binding.method.descriptor.input_type
        fields: list[FieldDescriptor] = []
        for part in name.split("."):
            if fields and (problem := _not_enterable(fields[-1])):
                return _Target(problem=problem)
            field = _field(message, part)
            if field is None and "[" in part:  # labels[key], as other gateways write maps
                field = _field(message, part.partition("[")[0])
                if field is not None and not (field.message_type is not None and is_map(field.message_type)):
                    field = None
            if field is None:
                owner = message.full_name if message is not None else fields[-1].full_name
                return _Target(problem=f"{owner} has no field {part!r}", reason="UNKNOWN_FIELD")
            fields.append(field)
            message = field.message_type
        path = ".".join(field.name for field in fields)
        if path in self._bound:
            return _Target(problem="the path already gives this field", reason="FIELD_BOUND_ELSEWHERE")
        if binding.whole_body or (binding.body is not None and fields[0].number == binding.body.number):
            return _Target(problem="this field belongs in the request body", reason="FIELD_BOUND_ELSEWHERE")
        if problem := _not_settable(fields[-1]):
            return _Target(problem=problem)
        return _Target(tuple(fields))


def parse_query(raw_query: bytes) -> Iterable[tuple[str, str]]:
    """Name and value pairs of an encoded query; ``+`` is a blank. Raises `errors.InvalidArgument`."""
    if not raw_query:
        return []
    pieces = [piece for piece in raw_query.split(b"&") if piece]
    if len(pieces) > _MAX_PARAMETERS:
        raise errors.InvalidArgument(
            f"the query has {len(pieces)} parameters, more than {_MAX_PARAMETERS}",
            reason="TOO_MANY_PARAMETERS",
        )
    pairs = []
    for piece in pieces:
        name, _, value = piece.replace(b"+", b" ").partition(b"=")
        try:
            pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
        except UnicodeDecodeError as error:
            raise errors.InvalidArgument(
                f"query parameter {piece.decode('latin-1')!r} is not percent-encoded UTF-8",
                reason="MALFORMED_QUERY",
            ) from error
    return pairs


def set_path(message: Message, fields: tuple[FieldDescriptor, ...], text: str) -> None:
    """Set the field that a path variable names. Raises ValueError."""
    _set(message, fields, text)


def _set(message: Message, fields: tuple[FieldDescriptor, ...], text: str) -> None:
    for field in fields[:-1]:
        message = getattr(message, field.name)
    last = fields[-1]
    if last.message_type is not None:
        target = getattr(message, last.name)
        item = target.add() if last.is_repeated else target
        item.SetInParent()
        values.message_from_text(item, text)
    elif last.is_repeated:
        getattr(message, last.name).append(values.from_text(last, text))
    else:
        setattr(message, last.name, values.from_text(last, text))


def _field(message: Descriptor | None, name: str) -> FieldDescriptor | None:
    if message is None:
        return None
    found = message.fields_by_name.get(name)
    if found is not None:
        return found
    return next((field for field in message.fields if field.json_name == name), None)


def _not_enterable(field: FieldDescriptor) -> str:
    """Why a dotted path cannot go on through a field."""
    if field.message_type is None:
        kind = "list" if field.is_repeated else "single value"
        return f"{field.name!r} is a {kind} and has no fields of its own"
    if is_map(field.message_type):
        return f"{field.name!r} is a map; maps cannot be given in the query, only in a request body"
    if field.is_repeated:
        return (
            f"{field.name!r} is a list of messages; it cannot be given in the query, only in a request body"
        )
    if field.message_type.full_name in values.WRAPPERS | values.TEXTUAL.keys():
        return f"{field.name!r} is written as one value ({field.message_type.full_name})"
    return ""


def _not_settable(field: FieldDescriptor) -> str:
    """Why a path cannot end at a field."""
    if field.message_type is None or field.message_type.full_name in values.WRAPPERS | values.TEXTUAL.keys():
        return ""
    if is_map(field.message_type):
        return f"{field.name!r} is a map; maps cannot be given in the query, only in a request body"
    if field.is_repeated:
        return (
            f"{field.name!r} is a list of messages; it cannot be given in the query, only in a request body"
        )
    inner = ", ".join(f"{field.name}.{each.name}" for each in field.message_type.fields[:6])
    return f"{field.name!r} is a message; give its fields one by one, such as {inner or '(it has none)'}"


def _oneof_conflict(target: _Target, name: str, chosen: dict[str, str]) -> str:
    for depth, field in enumerate(target.fields):
        oneof = field.containing_oneof
        if oneof is None:
            continue
        key = ".".join(part.name for part in target.fields[:depth]) + "/" + oneof.name
        before = chosen.setdefault(key, field.name)
        if before != field.name:
            return f"{before!r} and {field.name!r} exclude each other"
    return ""


def _naming_parameters(violations: list[FieldViolation]) -> errors.InvalidArgument:
    error = invalid_fields(violations)
    error.message = f"query parameter {error.message.removeprefix('field ')}"
    error.args = (error.message,)
    return error
