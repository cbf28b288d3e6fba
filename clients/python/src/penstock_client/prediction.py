"""What goes into a prediction and what comes out, apart from how it travels: the Open Inference Protocol's
messages made of numpy arrays and read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference import grpc_service_pb2 as oip

from penstock_client import tensors
from penstock_client.errors import DataLoss, InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike]

Parameter = bool | int | float | str


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 is any size."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Prediction:
    """One answer of a model."""

    model: str
    version: str
    """The version that answered, whoever chose it."""
    outputs: Mapping[str, Array]
    """Arrays by name; read-only views of what came over the wire."""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __getitem__(self, output: str) -> Array:
        try:
            return self.outputs[output]
        except KeyError:
            raise KeyError(f"no output {output!r}; there are: {', '.join(self.outputs)}") from None

    @property
    def output(self) -> Array:
        """The only output; for models with several, use their names."""
        if len(self.outputs) != 1:
            raise InvalidArgument(
                f"the model has {len(self.outputs)} outputs ({', '.join(self.outputs)}); name one",
                reason="OUTPUT_AMBIGUOUS",
            )
        return next(iter(self.outputs.values()))


@dataclass(frozen=True)
class InferRequest:
    """A request, ready to be written for either face."""

    model: str
    version: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def to_proto(self) -> oip.ModelInferRequest:
        """For gRPC: raw contents."""
        request = oip.ModelInferRequest(model_name=self.model, model_version=self.version, id=self.id)
        for name, array in self.inputs.items():
            request.inputs.add(name=name, datatype=tensors.datatype_of(array), shape=array.shape)
            request.raw_input_contents.append(tensors.to_raw(array))
        for name in self.outputs:
            request.outputs.add(name=name)
        for name, value in self.parameters.items():
            _set_parameter(request.parameters[name], value)
        return request

    def to_http(self) -> tuple[bytes, int]:
        """For REST: a JSON header and the tensors in binary after it; the body and the header's length."""
        blobs = [tensors.to_raw(array) for array in self.inputs.values()]
        head: dict[str, Any] = {
            "id": self.id,
            "parameters": {**self.parameters, "binary_data_output": True},
            "inputs": [
                {
                    "name": name,
                    "datatype": tensors.datatype_of(array),
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(blob)},
                }
                for (name, array), blob in zip(self.inputs.items(), blobs, strict=True)
            ],
        }
        if self.outputs:
            head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in self.outputs]
        encoded = json.dumps(head).encode()
        return b"".join([encoded, *blobs]), len(encoded)


def from_proto(response: oip.ModelInferResponse) -> Prediction:
    """The answer of the gRPC face."""
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise DataLoss(
            f"{len(response.outputs)} outputs but {len(raw)} raw contents", reason="TENSOR_MISSING"
        )
    outputs = {
        output.name: tensors.from_raw(raw[index], output.datatype, output.shape) if raw else _typed(output)
        for index, output in enumerate(response.outputs)
    }
    parameters = {name: _parameter(value) for name, value in response.parameters.items()}
    return Prediction(response.model_name, response.model_version, outputs, response.id, parameters)


def from_http(body: bytes, header_length: int | None) -> Prediction:
    """The answer of the REST face; `header_length` is that of the JSON, None when all of it is JSON."""
    view = memoryview(body)
    try:
        head = json.loads(bytes(view[: len(body) if header_length is None else header_length]))
        offset = len(body) if header_length is None else header_length
        outputs: dict[str, Array] = {}
        for output in head["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            shape, datatype = output["shape"], output["datatype"]
            if size is None:
                outputs[output["name"]] = tensors.as_array(output["data"], datatype).reshape(shape)
            else:
                outputs[output["name"]] = tensors.from_raw(view[offset : offset + size], datatype, shape)
                offset += size
        return Prediction(
            head["model_name"],
            head.get("model_version", ""),
            outputs,
            head.get("id", ""),
            head.get("parameters", {}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataLoss(f"the answer cannot be read: {error}", reason="RESPONSE_MALFORMED") from error


def model_info(metadata: oip.ModelMetadataResponse) -> ModelInfo:
    """What a server says of a model."""
    return ModelInfo(
        metadata.name,
        tuple(metadata.versions),
        metadata.platform,
        tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in metadata.inputs),
        tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in metadata.outputs),
    )


def needs_model_info(inputs: Inputs) -> bool:
    """Whether names or element types are missing from what the caller gave."""
    import numpy as np

    return not (
        isinstance(inputs, Mapping) and all(isinstance(value, np.ndarray) for value in inputs.values())
    )


def bind(inputs: Inputs, info: ModelInfo | None) -> dict[str, Array]:
    """Arrays by input name. Lists take the model's element types; arrays keep their own, so that a wrong
    one is refused by the server and not silently changed.
    """
    import numpy as np

    if info is None:
        if not isinstance(inputs, Mapping):
            raise InvalidArgument("inputs without names need the model's description", reason="INPUT_UNNAMED")
        return {name: np.asarray(value) for name, value in inputs.items()}
    if not isinstance(inputs, Mapping):
        if len(info.inputs) != 1:
            wanted = ", ".join(tensor.name for tensor in info.inputs)
            raise InvalidArgument(
                f"{info.name} takes {len(info.inputs)} inputs ({wanted}); "
                "give a mapping of their names to arrays",
                reason="INPUT_UNNAMED",
            )
        inputs = {info.inputs[0].name: inputs}
    datatypes = {tensor.name: tensor.datatype for tensor in info.inputs}
    return {
        name: value if isinstance(value, np.ndarray) else tensors.as_array(value, datatypes.get(name))
        for name, value in inputs.items()
    }


_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _typed(output: oip.ModelInferResponse.InferOutputTensor) -> Array:
    """An output of a server that does not send raw contents."""
    try:
        values = getattr(output.contents, _TYPED_FIELDS[output.datatype])
    except KeyError:
        raise DataLoss(
            f"output {output.name} of {output.datatype} has no contents", reason="TENSOR_MISSING"
        ) from None
    return tensors.as_array(list(values), output.datatype).reshape(tuple(output.shape))


def _set_parameter(target: oip.InferParameter, value: Parameter) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        target.int64_param = value
    elif isinstance(value, float):
        target.double_param = value
    else:
        target.string_param = value


def _parameter(value: oip.InferParameter) -> Parameter:
    which = value.WhichOneof("parameter_choice")
    found: Parameter = getattr(value, which) if which else ""
    return found
