"""The hand-read parts of the wire format against protobuf itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference import grpc_service_pb2 as pb
from mds.api import wire

tensors = st.lists(st.tuples(st.text(max_size=8), st.lists(st.integers(0, 2**40), max_size=3)), max_size=3)


@given(tensors, st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=10), st.booleans())
def test_a_request_is_split_into_message_and_raw_contents(
    inputs: list[tuple[str, list[int]]], raw: list[bytes], request_id: str, raw_first: bool
) -> None:
    request = pb.ModelInferRequest(model_name="m", id=request_id)
    for name, shape in inputs:
        request.inputs.add(name=name, shape=shape, datatype="FP32")
    request.parameters["timeout"].int64_param = 5
    only_raw = pb.ModelInferRequest(raw_input_contents=raw).SerializeToString()
    rest = request.SerializeToString()
    # Fields may come in any order, and unknown ones of every wire type may lie between.
    unknown = b"\xa0\x06\x96\x01" + b"\xa9\x06" + bytes(8) + b"\xb5\x06" + bytes(4) + b"\xba\x06\x02ab"
    payload = only_raw + unknown + rest if raw_first else rest + unknown + only_raw
    kept, views = wire.split_raw_inputs(payload)
    assert [bytes(view) for view in views] == raw
    parsed = pb.ModelInferRequest.FromString(kept)
    assert not parsed.raw_input_contents
    parsed.raw_input_contents.extend(bytes(view) for view in views)
    assert parsed == pb.ModelInferRequest.FromString(payload)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused_or_kept(payload: bytes) -> None:
    try:
        kept, views = wire.split_raw_inputs(payload)
    except wire.WireError:
        return
    assert len(kept) + sum(len(view) for view in views) <= len(payload)


@pytest.mark.parametrize(
    "payload", [b"\x3a\x05abc", b"\x3a", b"\xff" * 12, b"\x0b", b"\x3a" + b"\xff" * 10, b"\x09abc"]
)
def test_broken_messages_are_refused(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.split_raw_inputs(payload)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=200))
def test_fields_are_written_as_protobuf_writes_them(number: int, data: bytes) -> None:
    assert wire.field(3, data) == pb.ModelInferResponse.FromString(
        wire.field(3, b"")
    ).SerializeToString() + wire.field(3, data)
    message = pb.InferTensorContents(uint64_contents=[number])
    assert message.SerializeToString() == wire.field(5, wire.varint(number))
    assert pb.InferTensorContents(bytes_contents=[data]).SerializeToString() == wire.field(8, data)


def test_views_are_not_copies() -> None:
    array = np.arange(100_000, dtype=np.float32)
    payload = pb.ModelInferRequest(raw_input_contents=[array.tobytes()]).SerializeToString()
    _, (view,) = wire.split_raw_inputs(payload)
    assert view.obj is payload
    assert (np.frombuffer(view, np.float32) == array).all()
