"""Requests and answers of the Open Inference Protocol, over gRPC and over REST."""

import json

import numpy as np
import pytest
from inference import grpc_service_pb2 as oip
from penstock_client import prediction
from penstock_client.errors import DataLoss, InvalidArgument
from penstock_client.prediction import InferRequest, ModelInfo, TensorInfo

ONE = ModelInfo("d/c", ("1",), "onnx", (TensorInfo("x", "FP32", (-1, 2)),), (TensorInfo("y", "FP32", (-1,)),))
TWO = ModelInfo("d/c", ("1",), "onnx", (TensorInfo("a", "INT64", (-1,)), TensorInfo("b", "BYTES", (-1,))), ())


def test_a_nameless_array_is_the_only_input_and_keeps_its_type() -> None:
    bound = prediction.bind(np.zeros((1, 2), dtype=np.float64), ONE)

    assert list(bound) == ["x"]
    assert bound["x"].dtype == np.float64


def test_lists_take_the_types_that_the_model_asks_for() -> None:
    bound = prediction.bind({"a": [1, 2], "b": ["u", "v"]}, TWO)

    assert bound["a"].dtype == np.int64
    assert bound["b"].tolist() == ["u", "v"]


def test_a_nameless_input_of_a_model_with_two_names_them() -> None:
    with pytest.raises(InvalidArgument, match="a, b"):
        prediction.bind([1], TWO)


def test_a_value_that_cannot_be_converted_says_to_what() -> None:
    with pytest.raises(InvalidArgument, match="INT64"):
        prediction.bind({"a": ["x"], "b": []}, TWO)


@pytest.mark.parametrize(
    ("inputs", "needed"),
    [({"x": np.zeros(1)}, False), ({"x": [1]}, True), (np.zeros(1), True), ([1], True)],
    ids=["named array", "named list", "array", "list"],
)
def test_the_model_is_only_asked_when_something_is_missing(inputs: object, needed: bool) -> None:
    assert prediction.needs_model_info(inputs) is needed  # type: ignore[arg-type]  # object of the table


def test_a_grpc_request_has_raw_contents_in_the_order_of_its_inputs() -> None:
    request = InferRequest(
        "d/c", "2", {"a": np.array([7], np.uint8), "b": np.array([1.0], np.float32)}, ("y",), "id", {"k": 3}
    ).to_proto()

    assert (request.model_name, request.model_version, request.id) == ("d/c", "2", "id")
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("a", "UINT8", [1]),
        ("b", "FP32", [1]),
    ]
    assert list(request.raw_input_contents) == [b"\x07", b"\0\0\x80\x3f"]
    assert [t.name for t in request.outputs] == ["y"]
    assert request.parameters["k"].int64_param == 3


def test_a_rest_request_is_json_and_then_the_tensors() -> None:
    body, length = InferRequest("d/c", "", {"a": np.array([7, 8], np.uint8)}, ("y",)).to_http()

    head = json.loads(body[:length])
    assert body[length:] == b"\x07\x08"
    assert head["inputs"] == [
        {"name": "a", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}
    ]
    assert head["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]


def test_both_faces_give_the_same_prediction() -> None:
    array = np.array([[0.5, 1.5]], np.float32)
    proto = oip.ModelInferResponse(model_name="d/c", model_version="2", id="i")
    proto.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    proto.raw_output_contents.append(array.tobytes())
    head = {
        "model_name": "d/c",
        "model_version": "2",
        "id": "i",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
        ],
    }
    encoded = json.dumps(head).encode()

    grpc, rest = prediction.from_proto(proto), prediction.from_http(encoded + array.tobytes(), len(encoded))

    for answer in (grpc, rest):
        assert (answer.model, answer.version, answer.id) == ("d/c", "2", "i")
        assert np.array_equal(answer["y"], array)
        assert np.array_equal(answer.output, array)


def test_answers_of_servers_without_raw_contents_are_read_too() -> None:
    proto = oip.ModelInferResponse(model_name="m")
    output = proto.outputs.add(name="y", datatype="INT64", shape=[2, 1])
    output.contents.int64_contents.extend([4, 5])

    assert prediction.from_proto(proto)["y"].tolist() == [[4], [5]]


def test_a_rest_answer_in_plain_json_is_read_too() -> None:
    body = (
        b'{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}'
    )

    assert prediction.from_http(body, None)["y"].dtype == np.float32


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"outputs": 1}'])
def test_a_rest_answer_that_cannot_be_read_is_data_loss(body: bytes) -> None:
    with pytest.raises(DataLoss):
        prediction.from_http(body, None)


def test_an_answer_with_fewer_contents_than_outputs_is_data_loss() -> None:
    proto = oip.ModelInferResponse()
    proto.outputs.add(name="y", datatype="FP32", shape=[1])
    proto.outputs.add(name="z", datatype="FP32", shape=[1])
    proto.raw_output_contents.append(b"\0" * 4)

    with pytest.raises(DataLoss):
        prediction.from_proto(proto)


def test_an_output_that_is_not_there_is_a_key_error_with_those_that_are() -> None:
    answer = prediction.Prediction("m", "1", {"y": np.zeros(1), "z": np.zeros(1)})

    with pytest.raises(KeyError, match="y, z"):
        answer["x"]
    with pytest.raises(InvalidArgument, match="name one"):
        _ = answer.output
