"""The comments of a descriptor set, by the full name of what they describe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # field numbers in FileDescriptorProto
_FIELD, _NESTED, _NESTED_ENUM, _ONEOF = 2, 3, 4, 8  # in DescriptorProto
_VALUE = 2  # in EnumDescriptorProto
_METHOD = 2  # in ServiceDescriptorProto

Path = tuple[int, ...]


def read_comments(descriptors: FileDescriptorSet) -> Mapping[str, str]:
    """Leading (or else trailing) comments; enum values are named ``package.Enum.VALUE``."""
    found: dict[str, str] = {}
    for file in descriptors.file:
        by_path = {tuple(location.path): location for location in file.source_code_info.location}
        for path, name in _elements(file):
            location = by_path.get(path)
            if location is not None and (text := location.leading_comments or location.trailing_comments):
                found[name] = _clean(text)
    return found


def _clean(text: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n")).strip()


def _elements(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    prefix = f"{file.package}." if file.package else ""
    for index, message in enumerate(file.message_type):
        yield from _message((_MESSAGE, index), message, prefix + message.name)
    for index, enum in enumerate(file.enum_type):
        yield from _enum((_ENUM, index), enum, prefix + enum.name)
    for index, service in enumerate(file.service):
        name = prefix + service.name
        yield (_SERVICE, index), name
        for number, method in enumerate(service.method):
            yield (_SERVICE, index, _METHOD, number), f"{name}.{method.name}"


def _message(path: Path, message: DescriptorProto, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELD, index), f"{name}.{field.name}"
    for index, oneof in enumerate(message.oneof_decl):
        yield (*path, _ONEOF, index), f"{name}.{oneof.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message((*path, _NESTED, index), nested, f"{name}.{nested.name}")
    for index, enum in enumerate(message.enum_type):
        yield from _enum((*path, _NESTED_ENUM, index), enum, f"{name}.{enum.name}")


def _enum(path: Path, enum: EnumDescriptorProto, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, _VALUE, index), f"{name}.{value.name}"
