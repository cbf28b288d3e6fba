"""MDS's model server against a bare hand-written grpc.aio server, both with the same small ONNX model."""

import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from inference import grpc_service_pb2 as pb

from bench import load, model, report
from bench.ports import free_port
from bench.process import Server

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MODEL = "small"
BASELINE = Path(__file__).with_name("baselines") / "model_server.py"


def package(folder: Path) -> tuple[Path, Path]:
    """The model file, and the package that `mds build` makes of a folder with nothing but it."""
    source = folder / "small"
    source.mkdir(exist_ok=True)
    model.write(source / "model.onnx")
    built = folder / "small.mdspkg"
    command = [
        sys.executable,
        "-m",
        "mds",
        "build",
        str(source),
        "--model",
        MODEL,
        "--version",
        "1",
        "--quiet",
    ]
    subprocess.run([*command, "--out", str(built)], check=True, stdout=subprocess.DEVNULL)
    return source / "model.onnx", built


def answers_rightly(address: str, expected: np.ndarray) -> bool:
    """Whether the server at `address` gives what ONNX Runtime itself gives."""
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
        answer = infer(model.request(MODEL).SerializeToString(), timeout=2)
    return np.allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), expected.ravel(), atol=1e-5)


async def run(folder: Path, *, concurrency: int, rounds: int, seconds: float) -> list[report.Row]:
    """CPU of the whole server: transport, decoding, queueing, the run itself, and answering."""
    onnx_file, package_file = package(folder)
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": model.row()})
    message = model.request(MODEL).SerializeToString()

    def server(name: str, port: int, command: list[str], environment: dict[str, str]) -> Server:
        return Server(
            name, command, environment, ready=lambda: answers_rightly(f"127.0.0.1:{port}", expected)
        )

    def mds(name: str, port: int, environment: dict[str, str]) -> Server:
        options = ["--grpc-port", str(port), "--rest-port", "0"]
        command = [sys.executable, "-m", "mds", "serve", str(package_file), *options]
        return server(name, port, command, {"MDS_CACHE": str(folder / "cache"), **environment})

    def target(name: str, server: Server, port: int) -> report.Target:
        def send(requests: int) -> load.Load:
            return load.run(f"127.0.0.1:{port}", METHOD, message, concurrency=concurrency, requests=requests)

        return report.Target(name, server, send)

    bare_port, plain_port, batching_port = free_port(), free_port(), free_port()
    bare = server("bare", bare_port, [sys.executable, str(BASELINE), str(bare_port), str(onnx_file)], {})
    plain = mds("mds", plain_port, {})
    batching = mds("mds-batching", batching_port, {"MDS_MODEL__MAX_ITEMS": "16"})
    with bare, plain, batching:
        targets = [
            target("bare grpc.aio", bare, bare_port),
            target("MDS", plain, plain_port),
            target("MDS, batches up to 16", batching, batching_port),
        ]
        return report.measure(targets, concurrency=concurrency, rounds=rounds, seconds=seconds)
