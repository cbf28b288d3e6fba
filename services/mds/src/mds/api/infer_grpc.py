"""ModelInfer between its wire form and numpy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from chassis import errors
from chassis.transport.port import Call
from google.protobuf.message import DecodeError
from inference import grpc_service_pb2 as pb

from mds.api import wire
from mds.api.elements import from_raw, from_values, to_raw
from mds.app.dataplane import (
    DataPlane,
    bad_contents,
    check_inputs,
    check_shape,
    deadline_with,
    input_spec,
    wanted_outputs,
)
from mds.app.model import AcceptedInput, ServedModel
from mds.domain.signature import TensorSpec
from mds.domain.tensors import Array, DataType, element_count

_parse = pb.ModelInferRequest.FromString
LARGE = 32 * 1024  # above it a copy of the tensors costs more than reading the outer fields in Python
_CACHED = 512

CONTENTS = {
    DataType.BOOL: "bool_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}


class InferHandler:
    """Answers ModelInfer."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._heads: dict[tuple[str, str], bytes] = {}
        self._outputs: dict[tuple[tuple[str, tuple[int, ...]], ...], bytes] = {}

    async def __call__(self, call: Call, payload: bytes) -> bytes:
        """Parses, runs, serialises."""
        request, raw = parse(payload)
        return await self.answer(request, raw, call.deadline)

    async def answer(
        self, request: pb.ModelInferRequest, raw: Sequence[bytes | memoryview], deadline: float | None
    ) -> bytes:
        """The serialised ModelInferResponse of a parsed request."""
        plane = self._plane
        model = plane.find(request.model_name, request.model_version)
        if request.parameters:
            deadline = deadline_with(deadline, request.parameters["timeout"].int64_param)
        inputs = _inputs(model, request, raw)
        items = check_inputs(model, inputs, len(request.inputs))
        wanted = wanted_outputs(model, [_wanted(output) for output in request.outputs])
        result = await plane.infer(model, inputs, items, deadline)
        if raw or any(spec.dtype not in CONTENTS for spec in wanted):
            return self._raw_response(model, request, wanted, result.outputs)
        return _typed_response(model, request, wanted, result.outputs)

    def _raw_response(
        self,
        model: ServedModel,
        request: pb.ModelInferRequest,
        wanted: Sequence[TensorSpec],
        outputs: Mapping[str, Array],
    ) -> bytes:
        """The response in its wire form: what is the same for each call is kept, tensors are copied once."""
        head = self._heads.get((request.model_name, model.version))
        if head is None:
            head = wire.field(1, request.model_name.encode()) + wire.field(2, model.version.encode())
            if len(self._heads) < _CACHED:
                self._heads[request.model_name, model.version] = head
        key = tuple([(spec.name, outputs[spec.name].shape) for spec in wanted])
        described = self._outputs.get(key)
        if described is None:
            described = b"".join(
                wire.field(5, _described(spec, outputs[spec.name]).SerializeToString()) for spec in wanted
            )
            if len(self._outputs) < _CACHED:
                self._outputs[key] = described
        parts: list[bytes | memoryview] = [head, described]
        if request.id:
            parts.append(wire.field(3, request.id.encode()))
        for spec in wanted:
            data = to_raw(outputs[spec.name], spec.dtype)
            parts.append(b"\x32" + wire.varint(len(data)))
            parts.append(data)
        return b"".join(parts)


def parse(payload: bytes) -> tuple[pb.ModelInferRequest, Sequence[bytes | memoryview]]:
    """A request, and its raw contents apart from it. Raises InvalidArgument."""
    try:
        if len(payload) < LARGE:
            request = _parse(payload)
            return request, request.raw_input_contents
        rest, raw = wire.split_raw_inputs(payload)
        return _parse(rest), raw
    except (DecodeError, wire.WireError) as error:
        raise errors.InvalidArgument(
            "the request is no inference.ModelInferRequest: it cannot be parsed", reason="REQUEST_MALFORMED"
        ) from error


def _inputs(
    model: ServedModel, request: pb.ModelInferRequest, raw: Sequence[bytes | memoryview]
) -> dict[str, Array]:
    tensors = request.inputs
    if raw and len(raw) != len(tensors):
        raise bad_contents(
            f"the request has {len(tensors)} inputs and {len(raw)} raw contents; each input needs one", ""
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        datatype = tensor.datatype
        shape = tuple(tensor.shape)
        known = model.accepted.get((name, datatype, shape))
        if known is None:
            known = _accept(model, name, datatype, shape)
        spec, size, dtype = known
        if tensor.parameters and "shared_memory_region" in tensor.parameters:
            raise shared_memory()
        if not raw:
            inputs[name] = _typed(spec, shape, tensor)
        elif size and len(raw[index]) == size and type(raw[index]) is bytes:
            inputs[name] = np.frombuffer(raw[index], dtype).reshape(shape)
        else:
            inputs[name] = from_raw(spec, shape, raw[index])
    return inputs


def _accept(model: ServedModel, name: str, datatype: str, shape: tuple[int, ...]) -> AcceptedInput:
    """Checks an input's name, type and shape; those that fit are remembered, as the next request's are the
    same.
    """
    spec = input_spec(model, name, datatype)
    check_shape(spec, shape)
    accepted = (spec, element_count(shape) * spec.dtype.size, spec.dtype.numpy)
    if len(model.accepted) < _CACHED:
        model.accepted[name, datatype, shape] = accepted
    return accepted


def _typed(spec: TensorSpec, shape: Sequence[int], tensor: Any) -> Array:
    name = CONTENTS.get(spec.dtype)
    if name is None:
        raise bad_contents(
            f"input {spec.name!r} of type {spec.dtype.value} has no typed contents; send raw_input_contents",
            spec.name,
        )
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled and filled != [name]:
        raise bad_contents(
            f"input {spec.name!r} of type {spec.dtype.value} has its elements in {filled[0]}; they go "
            f"in {name}",
            spec.name,
        )
    return from_values(spec, shape, list(getattr(tensor.contents, name)))


def _wanted(output: Any) -> str:
    parameters = output.parameters
    if parameters:
        if "shared_memory_region" in parameters:
            raise shared_memory()
        if "classification" in parameters and parameters["classification"].int64_param:
            raise errors.Unimplemented(
                "the classification extension is not available in this version of Penstock: ask for "
                "the scores",
                reason="CLASSIFICATION_UNAVAILABLE",
            )
    name: str = output.name
    return name


def _described(spec: TensorSpec, array: Array) -> pb.ModelInferResponse.InferOutputTensor:
    return pb.ModelInferResponse.InferOutputTensor(
        name=spec.name, datatype=spec.dtype.value, shape=array.shape
    )


def _typed_response(
    model: ServedModel,
    request: pb.ModelInferRequest,
    wanted: Sequence[TensorSpec],
    outputs: Mapping[str, Array],
) -> bytes:
    """A caller that sends typed contents gets them back."""
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=model.version, id=request.id
    )
    for spec in wanted:
        array = outputs[spec.name]
        tensor = response.outputs.add()
        tensor.CopyFrom(_described(spec, array))
        getattr(tensor.contents, CONTENTS[spec.dtype]).extend(array.ravel().tolist())
    return response.SerializeToString()


def shared_memory() -> errors.Unimplemented:
    """The error for whatever needs shared memory."""
    return errors.Unimplemented(
        "shared memory is not available in this version of Penstock: send tensors in the request",
        reason="SHARED_MEMORY_UNAVAILABLE",
    )
