"""The REST paths of the Open Inference Protocol, for the documents of the services that serve them by hand.

They carry tensors as JSON arrays or as bytes behind a JSON header, which no transcoding of the gRPC contract
gives, so they are told here, once for the model server and the gateway. Sources: the protocol's OpenAPI file
(kserve/open-inference-protocol) and Triton's extensions (binary data, statistics, model repository).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chassis.openapi.described import Described
from chassis.rest import media

TAG = "Open Inference Protocol"

_BINARY = "application/octet-stream"
_NAMES = "inference."
_DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
    "FP64", "BYTES",
)  # fmt: skip


def open_inference(model: str, *, statistics: bool, repository: bool) -> Described:
    """What is served under `/v2`. `model` is how a path names a model: `{model}` or `{project}/{model}`.

    `statistics` is for a server that answers for all its models at once, `repository` for one whose models
    can be loaded and unloaded.
    """
    paths: dict[str, Any] = {
        "/v2": {"get": _get("ServerMetadata", "Name, version and extensions of the server.", "server")},
        "/v2/health/live": {"get": _get("ServerLive", "Whether the server lives.", "live")},
        "/v2/health/ready": {"get": _get("ServerReady", "Whether the server can answer.", "ready")},
        "/v2/repository/index": {"post": _index()},
    }
    if statistics:
        text = "Statistics of all models."
        paths["/v2/models/stats"] = {"get": _get("AllModelStatistics", text, "statistics")}
    for base, suffix in ((f"/v2/models/{model}", ""), (f"/v2/models/{model}/versions/{{version}}", "_2")):
        for action, method, operation in _model(suffix):
            paths[base + action] = {method: _with_parameters(base, operation)}
    if repository:
        for name, text in (("load", "Loads the model."), ("unload", "Unloads the model.")):
            path = f"/v2/repository/models/{model}/{name}"
            operation = _operation(f"RepositoryModel{name.title()}", text, _answer(name))
            paths[path] = {"post": _with_parameters(path, operation)}
    return Described(paths, _SCHEMAS, {TAG: "Inference as KServe, Triton and their clients speak it."})


def _model(suffix: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    yield "", "get", _get(f"ModelMetadata{suffix}", "Inputs and outputs of the model.", "model")
    yield "/infer", "post", _infer(suffix)
    ready = {"description": "It can."}
    yield "/ready", "get", _operation(f"ModelReady{suffix}", "Whether the model can answer.", ready)
    yield "/config", "get", _get(f"ModelConfig{suffix}", "The model's configuration.", "config")
    yield "/stats", "get", _get(f"ModelStatistics{suffix}", "The model's statistics.", "statistics")


def _infer(suffix: str) -> dict[str, Any]:
    length = {
        "description": "Length of the JSON in front of the tensors' bytes, when there are any.",
        "schema": {"type": "integer", "minimum": 0},
    }
    name = "Inference-Header-Content-Length"
    answer = _answer("response")
    answer["content"][_BINARY] = _bytes("The JSON, then the bytes of the outputs that were asked for so.")
    answer["headers"] = {name: length}
    operation = _operation(
        f"ModelInfer{suffix}",
        "One inference. Tensors are JSON arrays, or bytes behind the JSON (Triton's binary data extension).",
        answer,
    )
    operation["parameters"] = [
        {"name": name, "in": "header", **length},
        {
            "name": "Grpc-Timeout",
            "in": "header",
            "description": "How long the caller waits: a number with `H`, `M`, `S`, `m`, `u` or `n`.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$"},
        },
    ]
    operation["requestBody"] = {
        "required": True,
        "content": {
            media.JSON: {"schema": _ref("request")},
            _BINARY: _bytes("The JSON, then the bytes of the inputs in their order."),
        },
    }
    return operation


def _index() -> dict[str, Any]:
    operation = _operation("RepositoryIndex", "All models and versions with their state.", _answer("index"))
    only_ready = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    operation["requestBody"] = {"required": False, "content": {media.JSON: {"schema": only_ready}}}
    return operation


def _get(name: str, text: str, answer: str) -> dict[str, Any]:
    return _operation(name, text, _answer(answer))


def _operation(name: str, text: str, answer: dict[str, Any]) -> dict[str, Any]:
    failure = {
        "description": "The call failed: the protocol's `error`, and the Status of all other paths.",
        "content": {media.JSON: {"schema": _ref("failure")}},
    }
    return {
        "operationId": f"Inference_{name}",
        "tags": [TAG],
        "summary": text.split(". ")[0].removesuffix("."),
        "description": text,
        "responses": {"200": answer, "4XX": failure, "5XX": failure},
    }


def _with_parameters(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    return {**operation, "parameters": [*_path_parameters(path), *operation.get("parameters", ())]}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    texts = {
        "project": "The project.",
        "model": "The model.",
        "version": "The version; without one the server chooses.",
    }
    found = []
    for name, text in texts.items():
        if f"{{{name}}}" in path:
            parameter: dict[str, Any] = {
                "name": name,
                "in": "path",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
            }
            if name == "model" and "{project}" not in path:
                parameter["description"] = "The model, or `project/model`."
                parameter["x-may-hold-slashes"] = True
            found.append(parameter)
    return found


def _answer(schema: str) -> dict[str, Any]:
    return {"description": "The answer.", "content": {media.JSON: {"schema": _ref(schema)}}}


def _bytes(text: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": text}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{_NAMES}{name}"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_PARAMETERS = {"type": "object", "additionalProperties": True}
_TENSOR = {
    "name": _TEXT,
    "shape": _list({"type": "integer", "format": "int64"}),
    "datatype": {"type": "string", "enum": list(_DATATYPES)},
    "parameters": {**_PARAMETERS, "description": "`binary_data_size`: the tensor's bytes follow the JSON."},
    "data": {
        "type": "array",
        "items": {},
        "description": "The elements, flat or nested, in row-major order.",
    },
}
_SCHEMAS = {
    _NAMES + name: schema
    for name, schema in {
        "failure": _object(
            ("error",), error=_TEXT, status={"$ref": "#/components/schemas/google.rpc.Status"}
        ),
        "server": _object(("name", "version"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
        "live": _object(("live",), live=_FLAG),
        "ready": _object(("ready",), ready=_FLAG),
        "tensor": _object(("name", "shape", "datatype"), **_TENSOR),
        "output": _object(("name",), name=_TEXT, parameters=_PARAMETERS),
        "request": _object(
            ("inputs",),
            id=_TEXT,
            parameters=_PARAMETERS,
            inputs=_list(_ref("tensor")),
            outputs=_list(_ref("output")),
        ),
        "response": _object(
            ("model_name", "outputs"),
            model_name=_TEXT,
            model_version=_TEXT,
            id=_TEXT,
            parameters=_PARAMETERS,
            outputs=_list(_ref("tensor")),
        ),
        "model": _object(
            ("name", "inputs", "outputs"),
            name=_TEXT,
            versions=_list(_TEXT),
            platform=_TEXT,
            inputs=_list(_ref("signature")),
            outputs=_list(_ref("signature")),
        ),
        "signature": _object(
            ("name", "datatype", "shape"),
            name=_TEXT,
            datatype=_TENSOR["datatype"],
            shape=_TENSOR["shape"],
        ),
        "config": {**_PARAMETERS, "description": "As Triton's `ModelConfig`."},
        "statistics": _object(("model_stats",), model_stats=_list(_PARAMETERS)),
        "index": _list(
            _object(("name", "version", "state"), name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
        ),
        "load": _object(("model_name", "is_loaded"), model_name=_TEXT, is_loaded=_FLAG),
        "unload": _object(("model_name", "is_unloaded"), model_name=_TEXT, is_unloaded=_FLAG),
    }.items()
}
