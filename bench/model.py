"""The small model under the serving benchmarks: 64 floats in, two hidden layers of 128, 10 floats out."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from inference import grpc_service_pb2 as pb
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (64, 128, 128, 10)
SEED = 1


def write(path: Path) -> None:
    """Writes the ONNX file: input `x` float32 [n, 64], output `y` float32 [n, 10]."""
    random = np.random.default_rng(SEED)
    nodes, weights, current = [], [], "x"
    layers = list(pairwise(WIDTHS))
    for number, (inputs, outputs) in enumerate(layers):
        scaled = (random.standard_normal((inputs, outputs)) / inputs**0.5).astype(np.float32)
        weights += [
            numpy_helper.from_array(scaled, f"w{number}"),
            numpy_helper.from_array(np.zeros(outputs, np.float32), f"b{number}"),
        ]
        last = number == len(layers) - 1
        product = "y" if last else f"product{number}"
        nodes.append(helper.make_node("Gemm", [current, f"w{number}", f"b{number}"], [product]))
        if not last:
            current = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [product], [current]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTHS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTHS[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)


def row() -> np.ndarray:
    """One input row, float32 [1, 64]."""
    return np.random.default_rng(7).standard_normal((1, WIDTHS[0])).astype(np.float32)


def request(model_name: str) -> pb.ModelInferRequest:
    """The request that every benchmark sends: one row as raw contents (256 bytes of tensor)."""
    message = pb.ModelInferRequest(model_name=model_name, raw_input_contents=[row().tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTHS[0]])
    return message
