"""Requests of both faces, as a hostile or careless caller may send them: read, or refused in our own
words.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chassis import errors
from hypothesis import given, settings
from hypothesis import strategies as st
from inference import grpc_service_pb2 as pb
from mds.api import infer_rest
from mds.api.elements import from_raw, from_values, to_raw
from mds.api.infer_grpc import InferHandler, parse
from mds.app.batcher import Result
from mds.app.dataplane import DataPlane
from mds.app.model import ModelTools, ServedModel
from mds.app.steps import Timings
from mds.domain.manifest import Manifest
from mds.domain.signature import Signature, TensorSpec
from mds.domain.tensors import DataType


def served(*inputs: TensorSpec) -> ServedModel:
    outputs = (TensorSpec("y", "FP32", [-1, 2]),)
    manifest = Manifest("m", "1", Signature(inputs, outputs), "python", entry_class="a:B")
    tools = ModelTools(None, None, None, None)  # type: ignore[arg-type]  # nothing is loaded here
    return ServedModel(manifest, "sha256:0", Path(), tools)


MODEL = served(TensorSpec("x", "FP32", [-1, 2]), TensorSpec("t", "BYTES", [-1], optional=True))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
tensor_like = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "t", "z"]) | json_values,
        "datatype": st.sampled_from(["FP32", "BYTES", "INT8"]) | json_values,
        "shape": st.lists(st.integers(-2, 3), max_size=3) | json_values,
        "data": st.lists(st.floats(width=32) | st.text(max_size=3), max_size=6) | json_values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": json_values}) | json_values,
    },
)
request_like = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "inputs": st.lists(tensor_like, max_size=3) | json_values,
        "outputs": st.lists(st.dictionaries(st.sampled_from(["name", "parameters"]), json_values))
        | json_values,
        "parameters": st.dictionaries(st.sampled_from(["timeout", "binary_data_output"]), json_values)
        | json_values,
    },
)


@settings(max_examples=120, deadline=None)
@given(request_like, st.binary(max_size=20), st.none() | st.text("0123456789-x", max_size=3))
def test_whatever_json_comes_is_read_or_refused(tree: Any, tail: bytes, length: str | None) -> None:
    body = json.dumps(tree).encode()
    told = str(len(body)) if length == "" else length
    try:
        request = infer_rest.parse(MODEL, body + tail, told)
    except errors.Error:
        return  # in our own words; any other exception fails the test
    assert request.items >= 1
    assert set(request.inputs) <= {"x", "t"}


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 2))
def test_whatever_bytes_come_are_read_or_refused(payload: bytes, form: int) -> None:
    if form == 1:  # a good beginning
        payload = pb.ModelInferRequest(model_name="m").SerializeToString() + payload
    elif form == 2:  # large enough for the hand-written reader
        payload = pb.ModelInferRequest(raw_input_contents=[bytes(40_000)]).SerializeToString() + payload
    with contextlib.suppress(errors.InvalidArgument):  # any other exception fails the test
        parse(payload)


async def test_a_request_is_answered_from_what_the_plane_gives() -> None:
    class Plane(DataPlane):
        async def infer(self, model: Any, inputs: Any, items: int, deadline: float | None) -> Result:
            self.seen = (inputs, items, deadline)
            return Result({"y": inputs["x"] * 2}, Timings(0, 0, 0, 0), 0, items)

    plane = Plane([MODEL], None)
    handler = InferHandler(plane)
    x = np.arange(20_000, dtype=np.float32).reshape(-1, 2)
    for array in (x[:2], x):  # below and above the size from which contents are taken by their place
        request = pb.ModelInferRequest(model_name="any/m", id="é", raw_input_contents=[array.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=array.shape)
        for _ in range(2):  # the second time from what was remembered
            answer = pb.ModelInferResponse.FromString(
                await handler.answer(*parse(request.SerializeToString()), None)
            )
            assert (answer.model_name, answer.model_version, answer.id) == ("any/m", "1", "é")
            assert list(answer.outputs[0].shape) == list(array.shape)
            assert answer.raw_output_contents[0] == (array * 2).tobytes()
            assert plane.seen[1] == len(array)


raw_kinds = [kind for kind in DataType if kind is not DataType.BYTES]


@pytest.mark.parametrize("kind", raw_kinds, ids=lambda kind: kind.value)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_raw_contents_are_views_that_come_back_as_they_were(kind: DataType, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    raw = data.draw(st.binary(min_size=rows * 3 * kind.size, max_size=rows * 3 * kind.size))
    spec = TensorSpec("x", kind, [-1, 3])
    array = from_raw(spec, (rows, 3), raw)
    assert array.shape == (rows, 3)
    assert bytes(to_raw(array, kind)) == raw
    for wrong in (raw + b"\0", raw[:-1]):
        if len(wrong) != len(raw):
            with pytest.raises(errors.InvalidArgument):
                from_raw(spec, (rows, 3), wrong)


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(max_size=3))
def test_byte_strings_come_back_as_they_were(items: list[bytes], extra: bytes) -> None:
    raw = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    spec = TensorSpec("t", "BYTES", [-1])
    array = from_raw(spec, (len(items),), raw)
    assert array.tolist() == items
    assert to_raw(array, DataType.BYTES) == raw
    if extra:
        with pytest.raises(errors.InvalidArgument):
            from_raw(spec, (len(items),), raw + extra)


VALUES = [
    ("INT8", [127, -128], True), ("INT8", [128], False), ("INT8", [1.0], False), ("INT8", [True], False),
    ("UINT64", [2**64 - 1, 1], True), ("UINT64", [2**64], False), ("UINT8", [-1], False),
    ("BOOL", [True, False], True), ("BOOL", [1], False), ("BOOL", ["true"], False),
    ("FP32", [1, 2.5], True), ("FP32", [None], False), ("FP32", ["1"], False), ("FP16", [1.5], True),
    ("BF16", [0.5], True), ("FP64", [2**70], True), ("INT64", [2**63], False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "good"), VALUES, ids=str)
def test_typed_contents_are_taken_only_if_nothing_is_lost(kind: str, values: list[Any], good: bool) -> None:
    spec = TensorSpec("x", kind, [-1])
    if not good:
        with pytest.raises(errors.InvalidArgument):
            from_values(spec, (len(values),), values)
        return
    array = from_values(spec, (len(values),), values)
    assert array.dtype == DataType[kind].numpy
    assert array.tolist() == values
