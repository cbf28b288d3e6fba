"""The two routed fields are read from raw bytes as protobuf itself would read them."""

import pytest
from aigw.api.wire import read_names
from chassis import errors
from hypothesis import given
from hypothesis import strategies as st
from inference import grpc_service_pb2 as oip

texts = st.text(max_size=40)


@given(texts, texts, texts, st.lists(st.binary(max_size=300), max_size=4))
def test_reads_what_protobuf_wrote(name: str, version: str, request_id: str, raw: list[bytes]) -> None:
    request = oip.ModelInferRequest(
        model_name=name, model_version=version, id=request_id, raw_input_contents=raw
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    request.parameters["priority"].int64_param = 7
    assert read_names(request.SerializeToString()) == (name, version)


@given(st.binary(max_size=60))
def test_agrees_with_protobuf_on_any_bytes(data: bytes) -> None:
    request = oip.ModelReadyRequest()
    try:
        request.ParseFromString(data)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError has no stable base; any refusal counts
        expected = None
    else:
        expected = (request.name, request.version)
    try:
        found = read_names(data)
    except errors.InvalidArgument:
        found = None
    if expected is None and found is not None:
        return  # ours walks over fields that it does not know more leniently than protobuf does
    assert found == expected


@given(st.lists(st.tuples(st.sampled_from([1, 2]), texts), max_size=6))
def test_the_last_one_of_a_repeated_field_wins(fields: list[tuple[int, str]]) -> None:
    data = b"".join(_text(number, value) for number, value in fields)
    last = {1: "", 2: ""} | dict(fields)
    assert read_names(data) == (last[1], last[2])


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"\x18\x96\x01", id="varint"),
        pytest.param(b"\x21" + b"\0" * 8, id="fixed64"),
        pytest.param(b"\x25" + b"\0" * 4, id="fixed32"),
        pytest.param(b"\x2a\x03abc", id="bytes"),
        pytest.param(b"\x33\x08\x01\x34", id="group"),
        pytest.param(b"\x33\x3b\x3c\x34", id="nested group"),
        pytest.param(b"\x08\x05", id="field 1 as a number"),
        pytest.param(b"\xaa\x01\x02hi", id="two-byte tag"),
        pytest.param(b"\x2a\x80\x01" + b"x" * 128, id="two-byte length"),
    ],
)
def test_other_fields_are_skipped(extra: bytes) -> None:
    assert read_names(extra + _text(2, "7") + extra + _text(1, "digits/classifier") + extra) == (
        "digits/classifier",
        "7",
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"\x0a", "ends within a field", id="no length"),
        pytest.param(b"\x0a\x05abc", "ends 2 bytes after", id="truncated text"),
        pytest.param(b"\x0a\x80", "ends within a field", id="truncated length"),
        pytest.param(b"\x3a\xff\xff\xff\xff\x0f", "after the message", id="tensor longer than the message"),
        pytest.param(b"\x25\0\0", "ends 2 bytes after", id="truncated fixed32"),
        pytest.param(b"\x21\0", "ends 7 bytes after", id="truncated fixed64"),
        pytest.param(b"\x18\x80", "ends within a field", id="truncated varint"),
        pytest.param(b"\x18" + b"\xff" * 10 + b"\x01", "longer than 10 bytes", id="endless varint"),
        pytest.param(b"\x0f", "wire type 7", id="wire type 7"),
        pytest.param(b"\x0c", "wire type 4", id="group end without a group"),
        pytest.param(b"\x33\x3c", "is ended as group 7", id="group ended by another"),
        pytest.param(b"\x33", "ends within a field", id="group without end"),
        pytest.param(b"\x33" * 200, "deep", id="groups without bottom"),
        pytest.param(b"\x02\x00", "field number 0", id="field number 0"),
        pytest.param(b"\x00\x00", "field number 0", id="field number 0 as a number"),
        pytest.param(b"\x0a\x01\xff", "UTF-8", id="not UTF-8"),
    ],
)
def test_malformed_payloads_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=why):
        read_names(data)


def _text(number: int, value: str) -> bytes:
    encoded = value.encode()
    return bytes([number << 3 | 2, *_varint(len(encoded))]) + encoded


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"\x0a\x81\x02" + b"a" * 257, "longer than 256", id="long name"),
        pytest.param(b"\x12\x81\x02" + b"a" * 257, "longer than 256", id="long version"),
        pytest.param(b"\x18\x00" * 2_000_000, "more than 16384 fields", id="fields"),
        pytest.param(b"\x33" + b"\x3b\x3c" * 2_000_000 + b"\x34", "more than 16384 fields", id="groups"),
        pytest.param(
            (b"\x33" + b"\x3b\x3c" * 100 + b"\x34") * 1_000, "more than 16384 fields", id="many groups"
        ),
    ],
)
def test_what_would_fill_the_memory_or_hold_the_loop_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=why):
        read_names(data)
