"""`/v2`: the Open Inference Protocol over HTTP, with Triton's extensions, on plain ASGI.

The paths are those of the http annotations of `inference.GRPCInferenceService`; a model is `{model}` or
`{project}/{model}`. Errors have the protocol's form, `{"error": "…"}`, and beside it the Status of all other
faces.
"""

import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from chassis import errors
from chassis.rest.headers import timeout as read_timeout
from chassis.rest.open_inference import JSON, OpenInferenceRoute, expect, read_body, send_body, send_json
from chassis.rest.problem import BodyTooLarge
from chassis.server.http import ROUTE
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from mds.api import infer_rest
from mds.api.describe import model_config, model_metadata, model_statistics, repository_index
from mds.api.infer_grpc import shared_memory
from mds.api.inference_service import EXTENSIONS
from mds.app.dataplane import DataPlane, deadline_with, wanted_outputs
from mds.app.model import ServedModel

_NAME = r"(?P<model>[^/]+(?:/[^/]+)?)"
_MODEL_PATH = re.compile(
    rf"/v2/models/{_NAME}?(?:/versions/(?P<version>[^/]+))?/(?P<action>infer|ready|config|stats)"
)
_METADATA_PATH = re.compile(rf"/v2/models/{_NAME}?(?:/versions/(?P<version>[^/]+))?")
_REPOSITORY_PATH = re.compile(rf"/v2/repository/(?:[^/]+/)?models/{_NAME}/(?P<action>load|unload)")
_INDEX_PATH = re.compile(r"/v2/repository/(?:[^/]+/)?index")
_FORMS = "/v2/models/{model}[/versions/{version}][/infer|/ready|/config|/stats]"
Respond = Callable[..., Awaitable[None]]
Body = Sequence[bytes | memoryview]


class RestInference(OpenInferenceRoute):
    """Everything under `/v2`, as one route of the REST face."""

    path = "/v2"

    def __init__(
        self, plane: DataPlane, version: str, *, max_body_bytes: int, may_unload: Callable[[], None]
    ) -> None:
        self._plane = plane
        self._version = version
        self._max_body = max_body_bytes
        self._may_unload = may_unload

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].rstrip("/")
        match = _MODEL_PATH.fullmatch(path)
        if match is not None and match["model"] is not None:
            await self._model(match, scope, receive, send)
            return
        scope[ROUTE] = path if path in ("/v2", "/v2/health/live", "/v2/health/ready") else "/v2/*"
        if path == "/v2":
            expect(scope, "GET")
            tree = {"name": "penstock", "version": self._version, "extensions": list(EXTENSIONS)}
            await send_json(send, tree)
        elif path == "/v2/health/live":
            expect(scope, "GET")
            await send_json(send, {"live": True})
        elif path == "/v2/health/ready":
            expect(scope, "GET")
            ready = self._plane.ready
            await send_json(send, {"ready": ready}, 200 if ready else 503)
        elif path == "/v2/models/stats":
            expect(scope, "GET")
            stats = [model_statistics(model, model.name) for model in self._plane.models]
            await send_json(send, {"model_stats": [_tree(one) for one in stats]})
        elif _INDEX_PATH.fullmatch(path):
            await self._index(scope, receive, send)
        elif (match := _REPOSITORY_PATH.fullmatch(path)) is not None:
            await self._repository(match, scope, receive, send)
        elif (match := _METADATA_PATH.fullmatch(path)) is not None and match["model"] is not None:
            expect(scope, "GET")
            model = self._plane.find(match["model"], match["version"] or "")
            await send_json(send, _tree(model_metadata(model, match["model"])))
        else:
            raise _elsewhere(path)

    async def _model(self, match: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        action, name = match["action"], match["model"]
        scope[ROUTE] = f"/v2/models/{{model}}/{action}"
        expect(scope, "POST" if action == "infer" else "GET")
        model = self._plane.find(name, match["version"] or "")
        if action == "infer":
            await self._infer(name, model, scope, receive, send)
        elif action == "ready":
            await send_body(send, b"", 200 if model.batcher is not None else 503, JSON)
        elif action == "config":
            await send_json(send, _tree(model_config(model, name)))
        else:
            await send_json(send, {"model_stats": [_tree(model_statistics(model, name))]})

    async def _infer(self, name: str, model: ServedModel, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        seconds = read_timeout(headers.get("grpc-timeout"))
        deadline = None if seconds is None else monotonic() + seconds
        body = self._decoded(await read_body(receive), headers.get("content-encoding", ""))
        request = infer_rest.parse(model, body, headers.get("inference-header-content-length"))
        wanted = wanted_outputs(model, [output for output, _ in request.outputs])
        deadline = deadline_with(deadline, request.timeout_us)
        result = await self._plane.infer(model, request.inputs, request.items, deadline)
        parts, json_length = infer_rest.encode(name, model, request, result.outputs, wanted)
        answer = parts[0] if len(parts) == 1 else b"".join(parts)
        if json_length is None:
            await send_body(send, answer, 200, JSON)
        else:
            length = (b"inference-header-content-length", str(json_length).encode())
            await send_body(send, answer, 200, (b"content-type", b"application/octet-stream"), length)

    async def _index(self, scope: Scope, receive: Receive, send: Send) -> None:
        expect(scope, "POST")
        body = await read_body(receive)
        tree = infer_rest.load_json(body) if body.strip() else {}
        only_ready = isinstance(tree, dict) and tree.get("ready") is True
        index = repository_index(self._plane.models, only_ready=only_ready)
        await send_json(send, [_tree(model) for model in index.models])

    async def _repository(self, match: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        expect(scope, "POST")
        await read_body(receive)
        model = self._plane.find(match["model"], "")
        if match["action"] == "load":
            await model.load()
        else:
            self._may_unload()
            await model.unload()
        done = "is_loaded" if match["action"] == "load" else "is_unloaded"
        await send_json(send, {"model_name": model.name, done: True})

    def _decoded(self, body: bytes, encoding: str) -> bytes:
        """A body without its compression; what would grow beyond the limit is refused."""
        if encoding in ("", "identity"):
            return body
        if encoding not in ("gzip", "deflate"):
            raise infer_rest.malformed(
                f"the body has the content encoding {encoding!r}; gzip and deflate are known"
            )
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            plain = unpacker.decompress(body, self._max_body)
        except zlib.error as error:
            raise infer_rest.malformed(f"the body is not {encoding} as it says: {error}") from error
        if unpacker.unconsumed_tail:
            raise BodyTooLarge(self._max_body)
        if not unpacker.eof:
            raise infer_rest.malformed(f"the {encoding} body ends too early")
        return plain


def _headers(scope: Scope) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


def _tree(message: Message) -> Any:
    """JSON with the contract's own field names, and 64-bit integers as numbers, as Triton's clients
    expect.
    """
    tree = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _numbered(tree, message)


def _numbered(tree: Any, message: Message) -> Any:
    for field, value in message.ListFields():
        name = field.name
        if name not in tree or (field.message_type and field.message_type.GetOptions().map_entry):
            continue
        if field.message_type is not None:
            inner = list(value) if field.is_repeated else [value]
            trees = tree[name] if field.is_repeated else [tree[name]]
            for one, of in zip(trees, inner, strict=True):
                _numbered(one, of)
    for name, value in tree.items():
        known = message.DESCRIPTOR.fields_by_name.get(name)
        if known is not None and known.cpp_type in (known.CPPTYPE_INT64, known.CPPTYPE_UINT64):
            tree[name] = [int(one) for one in value] if isinstance(value, list) else int(value)
    return tree


def _elsewhere(path: str) -> errors.Error:
    if path.startswith(("/v2/systemsharedmemory", "/v2/cudasharedmemory")):
        return shared_memory()
    if path.startswith(("/v2/trace", "/v2/logging")) or path.endswith("/trace/setting"):
        return errors.Unimplemented(
            "trace and log settings cannot be changed while the server runs in this version of Penstock",
            reason="SETTINGS_UNAVAILABLE",
        )
    return errors.NotFound(
        f"there is nothing at {path}; paths are {_FORMS}, /v2, /v2/health/live, /v2/health/ready, "
        "/v2/models/stats, /v2/repository/index, /v2/repository/models/{model}/load|unload",
        reason="PATH_NOT_FOUND",
        metadata={"path": path[:256]},
    )
