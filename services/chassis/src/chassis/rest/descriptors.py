"""Descriptors as the transcoder needs them: one pool that holds the services and whatever error details may
name.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import cast

from google.api import httpbody_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

Descriptors = descriptor_pb2.FileDescriptorSet | bytes | DescriptorPool

# Messages that answers may carry inside google.protobuf.Any although no service file imports them.
_ALWAYS = (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
    httpbody_pb2,
    error_details_pb2,
    status_pb2,
)


def penstock_descriptors() -> descriptor_pb2.FileDescriptorSet:
    """The descriptor set of every Penstock contract, with comments, as shipped in penstock-protos."""
    data = resources.files("penstock").joinpath("descriptors.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def load_pool(descriptors: Descriptors) -> DescriptorPool:
    """A pool of the given descriptors; a pool is taken as it is.

    Raises TypeError for a set that is not complete.
    """
    if isinstance(descriptors, bytes):
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    if not isinstance(descriptors, descriptor_pb2.FileDescriptorSet):
        return descriptors  # a pool; the default one is of upb's class, not of DescriptorPool
    pool = descriptor_pool.DescriptorPool()
    files = {file.name: file for file in descriptors.file}
    symbols = {symbol for file in descriptors.file for symbol in _symbols(file)}
    for module in _ALWAYS:
        for needed in _with_dependencies(module.DESCRIPTOR):
            proto = descriptor_pb2.FileDescriptorProto()
            needed.CopyToProto(proto)
            if proto.name not in files and symbols.isdisjoint(_symbols(proto)):
                files[proto.name] = proto
    for file in _in_order(files):
        pool.Add(file)
    return pool


def find_service(pool: DescriptorPool, name: str) -> ServiceDescriptor:
    """The service of a full name. Raises ValueError that says what to check."""
    try:
        return pool.FindServiceByName(name)
    except KeyError:
        raise ValueError(f"service {name!r} is not in the descriptors") from None


def _with_dependencies(file: FileDescriptor) -> Iterable[FileDescriptor]:
    for dependency in file.dependencies:
        yield from _with_dependencies(dependency)
    yield file


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterable[str]:
    prefix = f"{file.package}." if file.package else ""
    for kind in (file.message_type, file.enum_type, file.service):
        for element in kind:
            yield prefix + element.name


def _in_order(
    files: dict[str, descriptor_pb2.FileDescriptorProto],
) -> Iterable[descriptor_pb2.FileDescriptorProto]:
    """Dependencies first, whatever order the set has."""
    done: set[str] = set()

    def visit(name: str, wanted_by: str) -> Iterable[descriptor_pb2.FileDescriptorProto]:
        if name in done:
            return
        if name not in files:
            raise TypeError(
                f"the descriptor set lacks {name!r}, imported by {wanted_by!r}; build it with all imports"
            )
        done.add(name)
        for dependency in files[name].dependency:
            yield from visit(dependency, name)
        yield files[name]

    for name in list(files):
        yield from visit(name, name)


def message_of(field: FieldDescriptor) -> Descriptor:
    """The message type of a field that has one."""
    return cast(Descriptor, field.message_type)


def field_of(message: Message | Descriptor, name: str) -> FieldDescriptor:
    """The field of a name that is known to exist."""
    descriptor = message.DESCRIPTOR if isinstance(message, Message) else message
    return cast(FieldDescriptor, descriptor.fields_by_name[name])


@cache
def is_map(field_entry: Descriptor) -> bool:
    """Whether a message type is the hidden entry type of a map field."""
    return bool(field_entry.GetOptions().map_entry)


def enum_names(enum: EnumDescriptor, most: int = 12) -> str:
    """The names of an enum for an error text."""
    names = [value.name for value in enum.values]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
