"""The OpenAPI 3.1 document of a set of services, from the same bindings that the transcoder serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import status_pb2

from chassis.openapi.comments import read_comments
from chassis.openapi.described import Described
from chassis.openapi.paths import PathNames, PathParameter
from chassis.openapi.schemas import Schema, Schemas
from chassis.rest import media
from chassis.rest.bindings import Binding, read_bindings
from chassis.rest.descriptors import Descriptors, find_service, is_map, load_pool, message_of
from chassis.rest.values import TEXTUAL, WRAPPERS

_OPERATIONS = frozenset(("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"))
_STATUS = "google.rpc.Status"
_MAX_QUERY_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Info:
    """What the descriptors do not say.

    ``bearer`` tells that calls need an ``Authorization: Bearer`` header. ``described`` are routes
    that are served beside the transcoded ones.
    """

    title: str
    version: str
    description: str = ""
    servers: Sequence[str] = ()
    bearer: bool = True
    preserve_proto_field_names: bool = False
    described: Sequence[Described] = ()


def document(descriptors: Descriptors, services: Sequence[str], info: Info) -> dict[str, Any]:
    """The document as JSON values. Raises what `chassis.rest.asgi` raises for the same descriptors."""
    return _Builder(descriptors, services, info).document()


class _Builder:
    def __init__(self, descriptors: Descriptors, services: Sequence[str], info: Info) -> None:
        if isinstance(descriptors, bytes):
            descriptors = FileDescriptorSet.FromString(descriptors)
        comments = read_comments(descriptors) if isinstance(descriptors, FileDescriptorSet) else {}
        self._pool = load_pool(descriptors)
        self._services = services
        self._info = info
        self._schemas = Schemas(comments, preserve_proto_field_names=info.preserve_proto_field_names)
        self._names = PathNames()
        self._ids: dict[str, int] = {}

    def document(self) -> dict[str, Any]:
        info = self._info
        paths = self._paths()
        tags = [self._tag(name) for name in self._services]
        for described in info.described:
            for path, item in described.paths.items():
                paths.setdefault(path, {}).update(item)
            self._schemas.components.update(described.schemas)
            tags += [{"name": name, "description": text} for name, text in described.tags.items()]
        document: dict[str, Any] = {
            "openapi": "3.1.0",
            "info": {"title": info.title, "version": info.version, "description": info.description},
            "tags": tags,
            "paths": paths,
            "components": self._components(),
        }
        if info.servers:
            document["servers"] = [{"url": url} for url in info.servers]
        if info.bearer:
            document["security"] = [{"bearer": []}]
        return document

    def _tag(self, service: str) -> dict[str, str]:
        find_service(self._pool, service)
        return {"name": _short(service, self._services), "description": self._schemas.comment(service)}

    def _components(self) -> dict[str, Any]:
        self._schemas.message(status_pb2.Status.DESCRIPTOR)
        components: dict[str, Any] = {
            "schemas": dict(sorted(self._schemas.components.items())),
            "responses": {
                "Failure": {
                    "description": "The call failed. The body says how; its code and the HTTP status agree.",
                    "content": {media.JSON: {"schema": {"$ref": f"#/components/schemas/{_STATUS}"}}},
                }
            },
        }
        if self._info.bearer:
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token or an API key."}
            }
        return components

    def _paths(self) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        for binding in read_bindings(self._pool, self._services):
            path, parameters = self._names.path(binding)
            item = paths.setdefault(path, {})
            operation = self._operation(binding, parameters)
            if binding.http_method in _OPERATIONS:
                item[binding.http_method.lower()] = operation
            else:  # OpenAPI knows no other methods: told beside them
                item.setdefault("x-other-methods", {})[binding.http_method] = operation
        return paths

    def _operation(self, binding: Binding, parameters: Sequence[PathParameter]) -> dict[str, Any]:
        method = binding.method
        text = self._schemas.comment(method.descriptor.full_name)
        operation: dict[str, Any] = {
            "operationId": self._operation_id(f"{_short(method.service, self._services)}_{method.name}"),
            "tags": [_short(method.service, self._services)],
            "summary": _summary(text) or method.name,
            "description": text,
            "parameters": [*self._path_parameters(binding, parameters), *self._query_parameters(binding)],
            "responses": {
                "200": self._success(binding),
                "4XX": {"$ref": "#/components/responses/Failure"},
                "5XX": {"$ref": "#/components/responses/Failure"},
            },
            "x-grpc-method": method.path,
        }
        if binding.takes_body:
            operation["requestBody"] = self._request_body(binding)
        if method.descriptor.GetOptions().deprecated:
            operation["deprecated"] = True
        return operation

    def _operation_id(self, wanted: str) -> str:
        count = self._ids[wanted] = self._ids.get(wanted, 0) + 1
        return wanted if count == 1 else f"{wanted}_{count}"

    def _path_parameters(
        self, binding: Binding, parameters: Sequence[PathParameter]
    ) -> Iterator[dict[str, Any]]:
        for parameter in parameters:
            schema: Schema = {"type": "string"}
            text = ""
            if (owner := parameter.variable) is not None:
                leaf = owner.fields[-1]
                text = self._schemas.comment(leaf.full_name)
                if owner.variable.multi:
                    text = f"Part of `{owner.name}`. {text}".strip()
                else:
                    schema = self._schemas.field(leaf)
                    schema.pop("description", None)
            described: dict[str, Any] = {
                "name": parameter.name,
                "in": "path",
                "required": True,
                "schema": schema,
            }
            if parameter.rest:
                text = f"{text} May hold slashes.".strip()
                described["x-may-hold-slashes"] = True
            yield described | {"description": text}

    def _query_parameters(self, binding: Binding) -> Iterator[dict[str, Any]]:
        if binding.whole_body:
            return
        bound = {variable.name for variable in binding.variables}
        if binding.body is not None:
            bound.add(binding.body.name)
        yield from self._query(binding.method.descriptor.input_type, "", "", bound, ())

    def _query(
        self, message: Descriptor, path: str, shown: str, bound: set[str], above: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        for each in message.fields:
            name, label = path + each.name, shown + self._schemas.name(each)
            if name in bound:
                continue
            inner = each.message_type
            if inner is None or inner.full_name in WRAPPERS | TEXTUAL.keys():
                yield self._query_parameter(each, label, required=not above and self._schemas.required(each))
            elif _walkable(each) and inner.full_name not in above and len(above) < _MAX_QUERY_DEPTH:
                deeper = (*above, inner.full_name)
                yield from self._query(message_of(each), name + ".", label + ".", bound, deeper)

    def _query_parameter(self, field: FieldDescriptor, name: str, *, required: bool) -> dict[str, Any]:
        schema = self._schemas.field(field)
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        if required:
            parameter["required"] = True
        if schema.pop("deprecated", False):
            parameter["deprecated"] = True
        return parameter

    def _request_body(self, binding: Binding) -> dict[str, Any]:
        if binding.raw_request:
            return {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
        if binding.body is None:
            top = frozenset(v.fields[0].name for v in binding.variables if len(v.fields) == 1)
            message = binding.method.descriptor.input_type
            schema = self._schemas.object(message, without=top) if top else self._schemas.message(message)
            body: dict[str, Any] = {"required": bool(schema.get("required")) or not top}
        else:
            schema = self._schemas.field(binding.body)
            body = {"required": self._schemas.required(binding.body)}
            if text := schema.pop("description", ""):
                body["description"] = text
        if binding.method.client_streaming:
            whole = {"schema": {"type": "array", "items": schema}}
            body["content"] = {media.NDJSON: {"schema": schema}, media.JSON: whole}
        else:
            body["content"] = {media.JSON: {"schema": schema}}
        return body

    def _success(self, binding: Binding) -> dict[str, Any]:
        method = binding.method
        if binding.raw_response:
            content: dict[str, Any] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
            return {"description": "The bytes, with the media type they came with.", "content": content}
        if binding.response_body is not None:
            schema = self._schemas.field(binding.response_body)
        else:
            schema = self._schemas.message(method.descriptor.output_type)
        if not method.server_streaming:
            return {"description": "The answer.", "content": {media.JSON: {"schema": schema}}}
        failure = {
            "type": "object",
            "properties": {"error": {"$ref": f"#/components/schemas/{_STATUS}"}},
            "required": ["error"],
        }
        return {
            "description": (
                "A stream of answers. As newline-delimited JSON, a failure on the way is a last line "
                "with the one member `error`; as server-sent events, it is an event named `error`."
            ),
            "content": {
                media.NDJSON: {"schema": {"anyOf": [schema, failure]}},
                media.SSE: {"schema": schema},
            },
        }


def _walkable(field: FieldDescriptor) -> bool:
    """Whether the query may go on into a field's message."""
    message = message_of(field)
    return not (field.is_repeated or is_map(message) or message.full_name.startswith("google.protobuf."))


def _short(service: str, services: Sequence[str]) -> str:
    """The last part of a service's name, or all of it when another service ends the same."""
    last = service.rpartition(".")[2]
    return service if sum(other.rpartition(".")[2] == last for other in services) > 1 else last


def _summary(text: str) -> str:
    first = " ".join(text.split("\n\n", 1)[0].split())
    end = first.find(". ")
    first = first[:end] if end > 0 else first.removesuffix(".")
    return first if len(first) <= 120 else first[:119] + "…"
