"""Messages and enums as JSON Schemas (the ProtoJSON form), collected under their full names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.descriptor import FieldDescriptor as Field

from chassis.openapi import rules
from chassis.rest.descriptors import field_of, is_map, message_of

Schema = dict[str, Any]

_INT64 = {"type": ["string", "integer"], "format": "int64"}
_SCALARS: Mapping[int, Schema] = {
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    Field.TYPE_SINT32: {"type": "integer", "format": "int32"},
    Field.TYPE_SFIXED32: {"type": "integer", "format": "int32"},
    Field.TYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    Field.TYPE_FIXED32: {"type": "integer", "format": "uint32", "minimum": 0},
    Field.TYPE_INT64: _INT64,
    Field.TYPE_SINT64: _INT64,
    Field.TYPE_SFIXED64: _INT64,
    Field.TYPE_UINT64: {"type": ["string", "integer"], "format": "uint64", "minimum": 0},
    Field.TYPE_FIXED64: {"type": ["string", "integer"], "format": "uint64", "minimum": 0},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1.5s"]},
    "FieldMask": {"type": "string", "description": "Field paths in lowerCamelCase, separated by commas."},
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {"description": "Any JSON value."},
    "ListValue": {"type": "array", "items": {}},
    "Empty": {"type": "object", "additionalProperties": False},
    "Any": {
        "type": "object",
        "properties": {
            "@type": {"type": "string", "description": "The type, as a URL that ends in its full name."}
        },
        "required": ["@type"],
        "additionalProperties": True,
    },
}
_NULL_VALUE = "google.protobuf.NullValue"
_PACKAGE = "google.protobuf."


class Schemas:
    """Makes schemas and remembers each message and enum that was referred to."""

    def __init__(self, comments: Mapping[str, str], *, preserve_proto_field_names: bool = False) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._preserve = preserve_proto_field_names

    def name(self, field: Field) -> str:
        """The name of a field in JSON."""
        return field.name if self._preserve else str(field.json_name)

    def comment(self, full_name: str) -> str:
        """The comment on an element, empty when it has none."""
        return self._comments.get(full_name, "")

    def message(self, message: Descriptor) -> Schema:
        """A reference to the schema of a message, or the schema itself of a well-known type."""
        if message.full_name.startswith(_PACKAGE):
            known = _WELL_KNOWN.get(message.name)
            if known is not None:
                return dict(known)
            if message.name.endswith("Value"):
                inner = dict(self._scalar(field_of(message, "value")))
                kind = inner["type"]
                return inner | {"type": [*([kind] if isinstance(kind, str) else kind), "null"]}
        if message.full_name not in self.components:
            self.components[
                message.full_name
            ] = {}  # taken before descending: messages may contain themselves
            self.components[message.full_name] = self.object(message)
        return {"$ref": f"#/components/schemas/{message.full_name}"}

    def object(self, message: Descriptor, *, without: frozenset[str] = frozenset()) -> Schema:
        """The schema of a message's JSON object, less some of its fields."""
        fields = [field for field in message.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if text := self.comment(message.full_name):
            schema["description"] = text
        schema["properties"] = {self.name(field): self.field(field) for field in fields}
        if required := [self.name(field) for field in fields if self.required(field)]:
            schema["required"] = required
        schema["additionalProperties"] = False
        return schema

    def required(self, field: Field) -> bool:
        """Whether a request must give the field."""
        return field_behavior_pb2.REQUIRED in behaviours(field) or rules.is_required(field)

    def field(self, field: Field) -> Schema:
        """The schema of a field with its description and rules."""
        schema = self._shape(field) | rules.constraints(field)
        text = self._description(field)
        if text:
            schema["description"] = text
        behaviour = behaviours(field)
        if field_behavior_pb2.OUTPUT_ONLY in behaviour:
            schema["readOnly"] = True
        if field_behavior_pb2.INPUT_ONLY in behaviour:
            schema["writeOnly"] = True
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def _shape(self, field: Field) -> Schema:
        if not field.is_repeated:
            return self._single(field)
        if field.message_type is None or not is_map(field.message_type):
            return {"type": "array", "items": self._single(field) | rules.item_constraints(field)}
        value = field_of(message_of(field), "value")
        schema: Schema = {
            "type": "object",
            "additionalProperties": self._single(value) | rules.item_constraints(field),
        }
        if pattern := rules.key_pattern(field):
            schema["propertyNames"] = {"pattern": pattern}
        return schema

    def _single(self, field: Field) -> Schema:
        if field.message_type is not None:
            return self.message(message_of(field))
        return dict(self._scalar(field))

    def _scalar(self, field: Field) -> Schema:
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return _SCALARS[field.type]

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == _NULL_VALUE:
            return {"type": "null"}
        if enum.full_name not in self.components:
            lines = [self.comment(enum.full_name)]
            for value in enum.values:
                lines.append(
                    f"- `{value.name}` ({value.number}): {self.comment(f'{enum.full_name}.{value.name}')}"
                )
            names = [value.name for value in enum.values]
            self.components[enum.full_name] = {
                "type": "string",
                "enum": names,
                "description": "\n".join(lines).strip(),
            }
        return {"$ref": f"#/components/schemas/{enum.full_name}"}

    def _description(self, field: Field) -> str:
        parts = [self.comment(field.full_name)]
        behaviour = behaviours(field)
        if field_behavior_pb2.IMMUTABLE in behaviour:
            parts.append("Cannot be changed once set.")
        if field_behavior_pb2.IDENTIFIER in behaviour:
            parts.append("Identifies the resource.")
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            others = ", ".join(f"`{self.name(other)}`" for other in oneof.fields if other.name != field.name)
            parts.append(f"Excludes {others}.")
        parts += rules.notes(field)
        return "\n\n".join(part for part in parts if part)


def behaviours(field: Field) -> frozenset[int]:
    """The google.api.field_behavior values of a field."""
    return frozenset(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])
