"""buf.validate rules as JSON Schema keywords, as far as the two can say the same."""

from __future__ import annotations

import re
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

_FORMATS = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_BOUNDS = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}
_NUMBERS = frozenset(
    [
        "float",
        "double",
        "int32",
        "int64",
        "uint32",
        "uint64",
        "sint32",
        "sint64",
        "fixed32",
        "fixed64",
        "sfixed32",
        "sfixed64",
    ]
)


def field_rules(field: FieldDescriptor) -> validate_pb2.FieldRules | None:
    """The rules of a field, or None when it has none or they are switched off."""
    options = field.GetOptions()
    if not options.HasExtension(validate_pb2.field):
        return None
    rules: validate_pb2.FieldRules = options.Extensions[validate_pb2.field]
    return None if rules.ignore == validate_pb2.IGNORE_ALWAYS else rules


def is_required(field: FieldDescriptor) -> bool:
    """Whether the rules demand the field."""
    rules = field_rules(field)
    return rules is not None and rules.required


def constraints(field: FieldDescriptor) -> dict[str, Any]:
    """Keywords for the schema of a whole field (of the list or map for a repeated one)."""
    rules = field_rules(field)
    if rules is None:
        return {}
    return _of(rules, optional=rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE)


def item_constraints(field: FieldDescriptor) -> dict[str, Any]:
    """Keywords for the elements of a list, or the values of a map."""
    rules = field_rules(field)
    if rules is None:
        return {}
    kind = rules.WhichOneof("type")
    if kind == "repeated" and rules.repeated.HasField("items"):
        return _of(rules.repeated.items, optional=False)
    if kind == "map" and rules.map.HasField("values"):
        return _of(rules.map.values, optional=False)
    return {}


def key_pattern(field: FieldDescriptor) -> str:
    """The pattern of a map's keys, empty when there is none."""
    rules = field_rules(field)
    if rules is None or rules.WhichOneof("type") != "map" or not rules.map.HasField("keys"):
        return ""
    return str(_of(rules.map.keys, optional=False).get("pattern", ""))


def notes(field: FieldDescriptor) -> list[str]:
    """What the rules say that a schema cannot, in words: the messages of CEL rules."""
    rules = field_rules(field)
    if rules is None:
        return []
    return [rule.message or rule.expression for rule in rules.cel]


def _of(rules: validate_pb2.FieldRules, *, optional: bool) -> dict[str, Any]:
    kind = rules.WhichOneof("type")
    if kind == "string":
        return _string(rules.string, optional=optional)
    if kind in _NUMBERS:
        return _number(getattr(rules, kind), optional=optional)
    if kind == "repeated":
        return _sizes(
            rules.repeated, {"min_items": "minItems", "max_items": "maxItems"}, optional=optional
        ) | ({"uniqueItems": True} if rules.repeated.unique else {})
    if kind == "map":
        keywords = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}
        return _sizes(rules.map, keywords, optional=optional)
    return {}


def _string(rules: validate_pb2.StringRules, *, optional: bool) -> dict[str, Any]:
    schema = _sizes(rules, {"min_len": "minLength", "max_len": "maxLength"}, optional=optional)
    if rules.HasField("len"):
        schema |= {"minLength": rules.len, "maxLength": rules.len}
    if rules.HasField("const"):
        schema["const"] = rules.const
    if getattr(rules, "in"):
        schema["enum"] = [*getattr(rules, "in"), *([""] if optional else [])]
    if pattern := _pattern(rules):
        schema["pattern"] = f"^$|{pattern}" if optional else pattern
    known = rules.WhichOneof("well_known")
    if known in _FORMATS and not optional:
        schema["format"] = _FORMATS[known]
    return schema


def _pattern(rules: validate_pb2.StringRules) -> str:
    """One ECMA pattern; of several rules that need one, the written pattern goes first."""
    if rules.pattern:
        return rules.pattern.replace(r"\A", "^").replace(r"\z", "$")
    if rules.prefix:
        return "^" + re.escape(rules.prefix)
    if rules.suffix:
        return re.escape(rules.suffix) + "$"
    return re.escape(rules.contains) if rules.contains else ""


def _number(rules: Any, *, optional: bool) -> dict[str, Any]:
    if optional:
        return {}  # zero is let through beside the rule, which a range cannot say
    schema: dict[str, Any] = {}
    for name, keyword in _BOUNDS.items():
        if rules.HasField(name):
            schema[keyword] = getattr(rules, name)
    low = schema.get("exclusiveMinimum", schema.get("minimum"))
    high = schema.get("exclusiveMaximum", schema.get("maximum"))
    if low is not None and high is not None and low > high:
        return {}  # protovalidate reads bounds that cross as "outside of", JSON Schema as "never"
    if rules.HasField("const"):
        schema["const"] = rules.const
    if getattr(rules, "in"):
        schema["enum"] = list(getattr(rules, "in"))
    return schema


def _sizes(rules: Any, keywords: dict[str, str], *, optional: bool) -> dict[str, Any]:
    return {
        keyword: getattr(rules, name)
        for name, keyword in keywords.items()
        if rules.HasField(name) and not (optional and keyword.startswith("min"))
    }
