"""Fills a message from YAML nodes, which know their lines. Every error is collected, not only the first."""

import base64
import binascii
import difflib
import re
from collections.abc import Callable
from typing import Any

import yaml
from chassis import errors
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from dplo.api.declaration.places import Place, Places

_MOST_NODES = 20_000
_STRING, _INT, _FLOAT, _BOOL, _NULL = (
    f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null")
)
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KINDS = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}
_F = FieldDescriptor
_INTEGERS = {_F.CPPTYPE_INT32, _F.CPPTYPE_INT64, _F.CPPTYPE_UINT32, _F.CPPTYPE_UINT64}
_FLOATS = {_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE}


class Wrong(Exception):
    """A value that does not fit its field; the text says what would."""

    def __init__(self, text: str, reason: str = "TYPE") -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason


class NodeReader:
    """Reads one document into one message."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._count = 0
        self.violations: list[errors.FieldViolation] = []

    def read(self, node: yaml.Node, message: Message) -> None:
        """Fills the message; what is wrong is in `violations` afterwards."""
        if not isinstance(node, yaml.MappingNode):
            text = f"must be a mapping of fields, as in 'name: projects/…', is {_kind(node)}"
            self._complain("", text, "TYPE", node)
            return
        self._fill(message, node, "")

    def _fill(self, message: Message, node: yaml.MappingNode, path: str) -> None:
        descriptor: Any = message.DESCRIPTOR  # its two implementations share no type
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            field = _find(descriptor, name)
            inner = f"{path}.{field.name if field else name}" if path else (field.name if field else name)
            if field is None:
                self._complain(inner, _unknown(descriptor, name), "UNKNOWN_FIELD", key)
            elif field.name in seen:
                self._complain(inner, "is written twice", "DUPLICATE", key)
            elif _is_output(field):
                self._complain(inner, "is set by the service; leave it out", "OUTPUT_ONLY", key)
            else:
                seen.add(field.name)
                self._places.known[inner] = _place(key)
                self._set(message, field, value, inner)

    def _set(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        self._count += 1
        if self._count > _MOST_NODES:
            raise Wrong(f"holds more than {_MOST_NODES} values", "TOO_LARGE")
        if _tag(node) == _NULL:
            return
        oneof = field.containing_oneof
        other = message.WhichOneof(oneof.name) if oneof is not None else None
        if other is not None and other != field.name:
            self._complain(path, f"cannot stand beside '{other}': only one of them may be set", "ONEOF", node)
            return
        if _is_map(field):
            self._set_map(message, field, node, path)
        elif field.is_repeated:
            self._set_list(message, field, node, path)
        elif field.message_type is not None:
            self._set_message(getattr(message, field.name), field.message_type, node, path)
        else:
            self._try(path, node, lambda: setattr(message, field.name, scalar(field, node)))

    def _set_list(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.SequenceNode):
            self._complain(path, f"must be a list, is {_kind(node)}", "TYPE", node)
            return
        target = getattr(message, field.name)
        for index, item in enumerate(node.value):
            inner = f"{path}[{index}]"
            self._places.known[inner] = _place(item)
            if field.message_type is not None:
                self._set_message(target.add(), field.message_type, item, inner)
            else:
                self._try(inner, item, lambda item=item: target.append(scalar(field, item)))  # type: ignore[misc]  # mypy cannot infer a default in a lambda

    def _set_map(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._complain(path, f"must be a mapping of names to values, is {_kind(node)}", "TYPE", node)
            return
        entry: Any = field.message_type
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        target = getattr(message, field.name)
        for key, value in node.value:
            inner = f'{path}["{key.value}"]'
            self._places.known[inner] = _place(key)
            if value_field.message_type is not None:
                self._set_message(target[key.value], value_field.message_type, value, inner)
                continue

            def put(key: yaml.Node = key, value: yaml.Node = value) -> None:
                target[scalar(key_field, key)] = scalar(value_field, value)

            self._try(inner, value, put)

    def _set_message(self, target: Any, descriptor: Descriptor, node: yaml.Node, path: str) -> None:
        if descriptor.full_name == "google.protobuf.Duration":
            self._try(path, node, lambda: target.FromNanoseconds(_nanoseconds(node)))
        elif descriptor.full_name == "google.protobuf.Timestamp":
            self._try(path, node, lambda: target.FromJsonString(str(node.value)))
        elif isinstance(node, yaml.MappingNode):
            target.SetInParent()
            self._fill(target, node, path)
        else:
            known = ", ".join(f.name for f in descriptor.fields[:6])
            self._complain(path, f"must be a mapping ({known}), is {_kind(node)}", "TYPE", node)

    def _try(self, path: str, node: yaml.Node, put: Callable[[], None]) -> None:
        try:
            put()
        except Wrong as wrong:
            self._complain(path, wrong.text, wrong.reason, node)
        except (ValueError, TypeError) as error:
            self._complain(path, f"{_shown(node)} does not fit: {error}", "RANGE", node)

    def _complain(self, path: str, text: str, reason: str, node: yaml.Node) -> None:
        self.violations.append(self._places.violation(path, text, reason, _place(node)))


def scalar(field: FieldDescriptor, node: yaml.Node) -> Any:
    """The value of a field that is no message. Raises Wrong."""
    if not isinstance(node, yaml.ScalarNode):
        raise Wrong(f"must be a single value, is {_kind(node)}")
    if field.enum_type is not None:
        return _enum(field, node)
    if field.cpp_type in _INTEGERS:
        return _integer(node)
    if field.cpp_type in _FLOATS:
        if _tag(node) not in (_INT, _FLOAT):
            raise Wrong(f"must be a number, is {_shown(node)}")
        return float(node.value.replace("_", ""))
    if field.cpp_type == _F.CPPTYPE_BOOL:
        if _tag(node) != _BOOL:
            raise Wrong(f"must be true or false, is {_shown(node)}")
        return node.value.lower() in ("true", "yes", "on")
    if field.type == _F.TYPE_BYTES:
        return _bytes(node)
    if _tag(node) == _BOOL:
        raise Wrong(f'must be text, is {_shown(node)}; put it in quotes: "{node.value}"')
    return node.value


def _integer(node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    if _tag(node) in (_INT, _STRING) and re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    raise Wrong(f"must be a whole number, is {_shown(node)}")


def _bytes(node: yaml.ScalarNode) -> bytes:
    try:
        return base64.b64decode(node.value, validate=True)
    except binascii.Error as error:
        raise Wrong(f"must be base64: {error}") from error


def _enum(field: FieldDescriptor, node: yaml.ScalarNode) -> int:
    """By its full name, by the part of it that differs, or by number."""
    enum: Any = field.enum_type
    values = enum.values_by_name
    text = str(node.value)
    if _tag(node) == _INT and int(text) in enum.values_by_number:
        return int(text)
    prefix = _enum_prefix(list(values))
    for name in (text, prefix + text.upper().replace("-", "_")):
        if name in values:
            return int(values[name].number)
    short = [name.removeprefix(prefix) for name in values if not name.endswith("_UNSPECIFIED")]
    near = difflib.get_close_matches(text.upper(), short, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise Wrong(f"must be one of {', '.join(short)}, is {_shown(node)}{meant}", "ENUM")


def _enum_prefix(names: list[str]) -> str:
    first = next((name for name in names if name.endswith("_UNSPECIFIED")), "")
    return first.removesuffix("UNSPECIFIED")


def _nanoseconds(node: yaml.Node) -> int:
    match = _DURATION.match(str(node.value)) if isinstance(node, yaml.ScalarNode) else None
    if match is None:
        raise Wrong(f'must be a duration with its unit, as "30s", "500ms", "5m" or "1h", is {_shown(node)}')
    return round(float(match[1]) * _SECONDS[match[2]] * 1e9)


def _find(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    field = descriptor.fields_by_name.get(name)
    return field or next((f for f in descriptor.fields if f.json_name == name), None)


def _unknown(descriptor: Descriptor, name: str) -> str:
    names = [field.name for field in descriptor.fields if not _is_output(field)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    meant = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"
    return f"is no field of {descriptor.name}; {meant}"


def _is_output(field: FieldDescriptor) -> bool:
    behaviours = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.OUTPUT_ONLY in behaviours


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _tag(node: yaml.Node) -> str:
    return str(node.tag)


def _kind(node: yaml.Node) -> str:
    return _KINDS.get(type(node), "something else")


def _shown(node: yaml.Node) -> str:
    return f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else _kind(node)
