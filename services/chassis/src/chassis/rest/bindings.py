"""What the HTTP annotations of a service say, checked against its messages at start-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from chassis.rest import template as templates
from chassis.rest.descriptors import find_service, is_map
from chassis.rest.template import Template, TemplateError, Variable
from chassis.rest.values import TEXTUAL, WRAPPERS

HTTP_BODY = "google.api.HttpBody"


class BindingError(ValueError):
    """An annotation that cannot be served; the text names the method and what is wrong."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC."""

    path: str
    service: str
    name: str
    descriptor: MethodDescriptor
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    update_mask: FieldDescriptor | None


@dataclass(frozen=True, slots=True)
class PathVariable:
    """A path variable with the fields that lead to its place in the request."""

    variable: Variable
    fields: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        """Dotted contract names."""
        return ".".join(self.variable.field_path)


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One HTTP method and path of one RPC.

    ``whole_body`` is ``body: "*"``; ``body`` is the request field that the HTTP body goes to otherwise.
    """

    method: Method
    http_method: str
    template: Template
    variables: tuple[PathVariable, ...]
    whole_body: bool
    body: FieldDescriptor | None
    response_body: FieldDescriptor | None

    @property
    def takes_body(self) -> bool:
        """Whether the HTTP body means anything."""
        return self.whole_body or self.body is not None

    @property
    def raw_request(self) -> bool:
        """Whether the HTTP body is taken as it is (google.api.HttpBody)."""
        if self.whole_body:
            return bool(self.method.descriptor.input_type.full_name == HTTP_BODY)
        return self.body is not None and _message_name(self.body) == HTTP_BODY

    @property
    def raw_response(self) -> bool:
        """Whether the HTTP answer is what the message holds (google.api.HttpBody)."""
        if self.response_body is not None:
            return _message_name(self.response_body) == HTTP_BODY
        return bool(self.method.descriptor.output_type.full_name == HTTP_BODY)

    def __str__(self) -> str:
        return self.method.path


def read_bindings(
    pool: DescriptorPool, services: Iterable[str], *, unannotated: bool = False
) -> Iterator[Binding]:
    """The bindings of the services, in the order of the contract.

    ``unannotated`` also serves methods that have no annotation, as ``POST /package.Service/Method`` with
    ``body: "*"``. Raises `BindingError` and, for a service that is not in the pool, ValueError.
    """
    for name in services:
        service = find_service(pool, name)
        for descriptor in service.methods:
            method = _method(service, descriptor)
            rule = http_rule(descriptor)
            if rule is None:
                if not unannotated:
                    continue
                rule = http_pb2.HttpRule(post=method.path, body="*")
            for each in (rule, *rule.additional_bindings):
                yield _binding(method, each)


def http_rule(method: MethodDescriptor) -> http_pb2.HttpRule | None:
    """The google.api.http annotation of a method."""
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return None
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    return rule


def _method(service: ServiceDescriptor, descriptor: MethodDescriptor) -> Method:
    mask = descriptor.input_type.fields_by_name.get("update_mask")
    if mask is not None and (mask.is_repeated or _message_name(mask) != "google.protobuf.FieldMask"):
        mask = None
    return Method(
        path=f"/{service.full_name}/{descriptor.name}",
        service=service.full_name,
        name=descriptor.name,
        descriptor=descriptor,
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        client_streaming=bool(descriptor.client_streaming),
        server_streaming=bool(descriptor.server_streaming),
        update_mask=mask,
    )


def _binding(method: Method, rule: http_pb2.HttpRule) -> Binding:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise BindingError(f"{method.path}: an HTTP rule gives no path")
    http_method, path = (
        (rule.custom.kind, rule.custom.path) if kind == "custom" else (kind, getattr(rule, kind))
    )
    try:
        template = templates.parse(path)
    except TemplateError as error:
        raise BindingError(f"{method.path}: {error}") from error
    request = method.descriptor.input_type
    variables = tuple(PathVariable(v, _path_fields(method, request, v)) for v in template.variables)
    body = None if rule.body in ("", "*") else _top_field(method, request, rule.body, "body")
    response_body = None
    if rule.response_body:
        response_body = _top_field(method, method.descriptor.output_type, rule.response_body, "response_body")
    return Binding(
        method=method,
        http_method=http_method.upper(),
        template=template,
        variables=variables,
        whole_body=rule.body == "*",
        body=body,
        response_body=response_body,
    )


def _path_fields(method: Method, request: Descriptor, variable: Variable) -> tuple[FieldDescriptor, ...]:
    fields: list[FieldDescriptor] = []
    current: Any = request
    for position, name in enumerate(variable.field_path):
        shown = ".".join(variable.field_path[: position + 1])
        field = current.fields_by_name.get(name) if current is not None else None
        if field is None:
            raise BindingError(
                f"{method.path}: path variable {shown!r} is not a field of {request.full_name}"
            )
        if field.is_repeated:
            raise BindingError(f"{method.path}: path variable {shown!r} is a repeated field or a map")
        fields.append(field)
        current = field.message_type
    if current is not None and current.full_name not in WRAPPERS | TEXTUAL.keys():
        raise BindingError(f"{method.path}: path variable {'.'.join(variable.field_path)!r} is a message")
    return tuple(fields)


def _top_field(method: Method, message: Descriptor, name: str, what: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name)
    if field is None:
        raise BindingError(f"{method.path}: {what} {name!r} is not a field of {message.full_name}")
    if what == "body" and field.message_type is not None and is_map(field.message_type):
        raise BindingError(f"{method.path}: body {name!r} is a map; give the message that holds it instead")
    return field


def _message_name(field: FieldDescriptor) -> str:
    return str(field.message_type.full_name) if field.message_type is not None else ""
