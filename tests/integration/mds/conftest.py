"""Packages made on the spot, and model servers that serve them over real sockets."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import pytest_asyncio
from chassis.telemetry import Telemetry
from chassis.testing import RunningService, running
from inference import grpc_service_pb2 as pb
from mds.bootstrap import build_model_server
from mds.domain.declaration import Declaration
from mds.domain.execution import Batching
from mds.packaging import build_package
from mds.settings import ModelServerSettings
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def linear_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`y = x @ WEIGHTS`, plain ONNX, no code."""
    folder = tmp_path_factory.mktemp("linear")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    _save(graph, folder / "source" / "linear.onnx")
    said = Declaration(model="linear", version="1", batching=Batching(max_items=8))
    return build_package(folder / "source", folder, said)[1]


@pytest.fixture(scope="session")
def types_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One input of each type, given back as it came: what goes wrong in a conversion cannot hide."""
    kinds = [
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BF16",
        "BYTES",
    ]
    folder = tmp_path_factory.mktemp("types")
    source = folder / "source"
    source.mkdir()
    (source / "echo.py").write_text(
        "from mds import TensorSpec, inference, serving\n\n"
        f"KINDS = {kinds!r}\n\n"
        "@serving(\n"
        "    inputs=[TensorSpec(k.lower(), k, [-1, 2], optional=True) for k in KINDS],\n"
        "    outputs=[TensorSpec('seen', 'INT64', [-1])]\n"
        "    + [TensorSpec(k.lower() + '_back', k, [-1, 2]) for k in KINDS],\n"
        ")\n"
        "class Echo:\n"
        "    @inference\n"
        "    def echo(self, inputs):\n"
        "        import numpy as np\n"
        "        from mds.domain.tensors import DataType\n"
        "        n = len(next(iter(inputs.values())))\n"
        "        back = {}\n"
        "        for k in KINDS:\n"
        "            empty = np.zeros((n, 2), DataType[k].numpy) if k != 'BYTES' else np.full((n, "
        "2), b'', object)\n"
        "            back[k.lower() + '_back'] = inputs.get(k.lower(), empty)\n"
        "        back['seen'] = np.full(n, len(inputs), np.int64)\n"
        "        return back\n"
    )
    said = Declaration(model="types", version="1", entry="echo:Echo")
    return build_package(source, folder, said)[1]


@pytest.fixture(scope="session")
def moody_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of its own: negative numbers are bad input, 666 breaks it, 99 is slow, the rest is doubled."""
    folder = tmp_path_factory.mktemp("moody")
    source = folder / "source"
    source.mkdir()
    (source / "moody.py").write_text(
        "import time\n\n"
        "from mds import BadInput, Batching, TensorSpec, inference, load, postprocess, preprocess, "
        "serving\n\n\n"
        "@serving(\n"
        "    inputs=[TensorSpec('x', 'FP32', [-1, 1])],\n"
        "    outputs=[TensorSpec('y', 'FP32', [-1, 1])],\n"
        "    batching=Batching(max_items=16, max_queue=4),\n"
        ")\n"
        "class Moody:\n"
        "    @load\n"
        "    def open(self, context):\n"
        "        self.factor = 2.0\n\n"
        "    @preprocess\n"
        "    async def check(self, x):\n"
        "        if (x < 0).any():\n"
        "            raise BadInput('numbers must not be negative')\n"
        "        return x\n\n"
        "    @inference\n"
        "    def double(self, x):\n"
        "        if (x == 666).any():\n"
        "            raise RuntimeError('secret detail')\n"
        "        if (x == 99).any():\n"
        "            time.sleep(0.3)\n"
        "        return x * self.factor\n\n"
        "    @postprocess\n"
        "    def finish(self, y):\n"
        "        return {'y': y}\n"
    )
    said = Declaration(model="moody", version="2.1", entry="moody:Moody")
    return build_package(source, folder, said)[1]


Serving = Callable[..., contextlib.AbstractAsyncContextManager[RunningService]]


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Serves a package for as long as a context lasts."""

    @contextlib.asynccontextmanager
    async def serve(
        package: Path, *, telemetry: Telemetry | None = None, **settings: Any
    ) -> AsyncIterator[RunningService]:
        values = ModelServerSettings.model_validate(
            {"package": package, "cache": tmp_path_factory.mktemp("cache"), **settings}
        )
        async with running(values, build_model_server, name="mds", telemetry=telemetry) as service:
            yield service

    return serve


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def linear(serving: Serving, linear_package: Path) -> AsyncIterator[RunningService]:
    """A server of the linear model, of the project `demo`; tests with `loop_scope="module"` share it."""
    async with serving(linear_package, project="demo") as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(linear: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the linear model's REST face."""
    async with httpx.AsyncClient(base_url=linear.rest_url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def infer_request() -> Callable[..., pb.ModelInferRequest]:
    """Makes a request with raw contents from arrays by input name."""

    def make(
        model: str, *, version: str = "", request_id: str = "", outputs: Sequence[str] = (), **inputs: Any
    ) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
        for name, array in inputs.items():
            kind = {"f": "FP", "i": "INT", "u": "UINT", "b": "BOOL"}[array.dtype.kind]
            bits = "" if kind == "BOOL" else str(array.dtype.itemsize * 8)
            request.inputs.add(name=name, datatype=kind + bits, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        for name in outputs:
            request.outputs.add(name=name)
        return request

    return make
