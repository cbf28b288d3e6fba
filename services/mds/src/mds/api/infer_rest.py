"""The inference request and response of the Open Inference Protocol over HTTP, between bytes and numpy.

A body is JSON, or JSON followed by the raw contents of tensors (the binary tensor data extension): then the
header `Inference-Header-Content-Length` tells the length of the JSON, and each tensor's parameter
`binary_data_size` its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from chassis import errors

from mds.api.elements import from_raw, from_values, to_raw, to_text
from mds.api.infer_grpc import shared_memory
from mds.app.dataplane import bad_contents, check_inputs, check_shape, input_spec
from mds.app.model import ServedModel
from mds.domain.signature import TensorSpec
from mds.domain.tensors import Array, DataType

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A parsed request: inputs as arrays, the number of items, and what is wanted of each output."""

    id: str
    inputs: Mapping[str, Array]
    items: int
    timeout_us: int
    outputs: Sequence[tuple[str, bool]]  # name, binary; empty means all
    binary: bool  # of outputs that are not named


def parse(model: ServedModel, body: bytes, header_length: str | None) -> RestRequest:
    """Reads a request. Raises InvalidArgument that names what is wrong."""
    text, tail = _apart(body, header_length)
    tree = _object(load_json(text), "the request")
    parameters = _parameters(tree, "the request")
    given = tree.get("inputs")
    if not isinstance(given, list) or not given:
        raise malformed("the request needs `inputs`, a list of tensors with name, datatype, shape and data")
    inputs: dict[str, Array] = {}
    at = 0
    for index, tensor in enumerate(given):
        name, array, at = _input(model, _object(tensor, f"inputs[{index}]"), f"inputs[{index}]", tail, at)
        inputs[name] = array
    if at != len(tail):
        raise malformed(f"{len(tail) - at} bytes are left after the binary data of all inputs")
    return RestRequest(
        id=_text(tree, "id", "the request", ""),
        inputs=inputs,
        items=check_inputs(model, inputs, len(given)),
        timeout_us=_whole(parameters, "timeout", "the request"),
        outputs=_outputs(tree, bool(parameters.get("binary_data_output", False))),
        binary=bool(parameters.get("binary_data_output", False)),
    )


def load_json(text: bytes | memoryview) -> Any:
    """Parses JSON. Raises InvalidArgument that tells where it breaks."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidArgument(f"the body is no JSON: {error}", reason="JSON_MALFORMED") from error


def _apart(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(body) :]
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
        raise malformed(
            f"the header Inference-Header-Content-Length is {header_length[:32]!r}; it must be the "
            "length of the "
            f"JSON in the body, which has {len(body)} bytes"
        )
    length = int(header_length)
    return view[:length], view[length:]


def _input(model: ServedModel, tensor: Json, where: str, tail: memoryview, at: int) -> tuple[str, Array, int]:
    spec = input_spec(model, _text(tensor, "name", where), _text(tensor, "datatype", where))
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise malformed(f"{where}.shape must be a list of whole numbers")
    check_shape(spec, shape)
    parameters = _parameters(tensor, where)
    if "shared_memory_region" in parameters:
        raise shared_memory()
    if "binary_data_size" in parameters:
        size = _whole(parameters, "binary_data_size", where)
        if "data" in tensor:
            raise malformed(f"{where} has both data and binary_data_size; one is enough")
        if size > len(tail) - at:
            raise bad_contents(
                f"input {spec.name!r} has {size} bytes of binary data, and {len(tail) - at} are left "
                "in the body",
                spec.name,
            )
        return spec.name, from_raw(spec, shape, tail[at : at + size]), at + size
    if "data" not in tensor:
        raise bad_contents(f"input {spec.name!r} has no data", spec.name)
    return spec.name, from_values(spec, shape, _flat(tensor["data"], spec)), at


def _flat(data: Any, spec: TensorSpec) -> list[Any]:
    """Elements of a list that may be nested as the shape is, or flat."""
    if not isinstance(data, list):
        raise bad_contents(f"the data of input {spec.name!r} must be a list", spec.name)
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise bad_contents(f"the data of input {spec.name!r} is nested unevenly", spec.name)
        data = [item for part in data for item in part]
    if spec.dtype is DataType.BYTES and not all(isinstance(item, str) for item in data):
        raise bad_contents(f"the data of input {spec.name!r} of type BYTES must be texts", spec.name)
    items: list[Any] = data
    return items


def _outputs(tree: Json, default: bool) -> Sequence[tuple[str, bool]]:
    given = tree.get("outputs", [])
    if not isinstance(given, list):
        raise malformed("`outputs` must be a list of outputs with their name")
    wanted = []
    for index, output in enumerate(given):
        where = f"outputs[{index}]"
        parameters = _parameters(_object(output, where), where)
        if "shared_memory_region" in parameters:
            raise shared_memory()
        if parameters.get("classification"):
            raise errors.Unimplemented(
                "the classification extension is not available in this version of Penstock: ask for "
                "the scores",
                reason="CLASSIFICATION_UNAVAILABLE",
            )
        wanted.append((_text(output, "name", where), bool(parameters.get("binary_data", default))))
    return wanted


def encode(
    name: str,
    model: ServedModel,
    request: RestRequest,
    outputs: Mapping[str, Array],
    wanted: Sequence[TensorSpec],
) -> tuple[list[bytes | memoryview], int | None]:
    """Parts of the body of a response, and the length of its JSON if binary data follows."""
    binary = dict(request.outputs)
    described: list[Json] = []
    tail: list[bytes | memoryview] = []
    for spec in wanted:
        array = outputs[spec.name]
        tensor: Json = {"name": spec.name, "datatype": spec.dtype.value, "shape": list(array.shape)}
        if binary.get(spec.name, request.binary):
            data = to_raw(array, spec.dtype)
            tensor["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            tensor["data"] = _values(array, spec)
        described.append(tensor)
    tree: Json = {"model_name": name, "model_version": model.version, "outputs": described}
    if request.id:
        tree["id"] = request.id
    head = orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY)
    return ([head, *tail], len(head)) if tail else ([head], None)


def _values(array: Array, spec: TensorSpec) -> Any:
    """Elements for orjson, flat and in row-major order; what is no finite number becomes null."""
    if spec.dtype is DataType.BYTES:
        return to_text(array, spec.name)
    if spec.dtype is DataType.BF16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array).reshape(-1)


def _object(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise malformed(f"{where} must be an object")
    return value


def _parameters(tree: Json, where: str) -> Json:
    return _object(tree.get("parameters", {}), f"{where}: parameters")


def _text(tree: Json, name: str, where: str, default: str | None = None) -> str:
    value = tree.get(name, default)
    if not isinstance(value, str):
        raise malformed(f"{where} needs `{name}`, a text")
    return value


def _whole(tree: Json, name: str, where: str) -> int:
    value = tree.get(name, 0)
    if type(value) is not int or value < 0:
        raise malformed(f"{where}: parameter {name} must be a whole number of at least 0")
    return value


def malformed(message: str) -> errors.InvalidArgument:
    """The error for a request that is JSON and not what it should be."""
    return errors.InvalidArgument(message, reason="REQUEST_MALFORMED")
