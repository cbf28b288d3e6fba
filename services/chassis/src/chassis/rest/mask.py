"""The field mask of a PATCH that gives none: what the body mentions is what changes (as grpc-gateway does).

A nested object contributes the paths of its members, so that a PATCH of one nested field leaves its siblings
alone; lists, maps and well-known types are replaced whole. Fields that the path already gives, and fields
that a client cannot set (OUTPUT_ONLY, IDENTIFIER), are not part of the mask: clients that send a resource
back as they read it mean no change by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chassis.rest.descriptors import is_map, message_of

_NOT_SETTABLE = frozenset((field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER))

Names = Callable[[Descriptor], dict[str, FieldDescriptor]]


def paths(body: Any, resource: Descriptor, names: Names, bound: frozenset[str] = frozenset()) -> list[str]:
    """Mask paths, in contract names, of a resource's JSON object; ``bound`` are paths given by the URL."""
    return list(_walk(body, resource, names, "", bound))


def _walk(body: Any, message: Descriptor, names: Names, prefix: str, bound: frozenset[str]) -> Iterator[str]:
    fields = names(message)
    for key, value in body.items():
        field = fields.get(key)
        if field is None:
            continue
        path = prefix + field.name
        if path in bound or _NOT_SETTABLE.intersection(
            field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        ):
            continue
        if _enterable(field) and isinstance(value, dict) and value:
            yield from _walk(value, message_of(field), names, path + ".", bound)
        else:
            yield path


def _enterable(field: FieldDescriptor) -> bool:
    message = field.message_type
    return (
        message is not None
        and not field.is_repeated
        and not is_map(message)
        and not message.full_name.startswith("google.protobuf.")
    )
