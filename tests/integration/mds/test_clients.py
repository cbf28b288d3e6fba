"""Other people's clients, unmodified and each in an environment of its own, against a model server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chassis.testing import RunningService

from tests.clients.venvs import KSERVE, TRITON, client_python, run
from tests.integration.mds.conftest import WEIGHTS

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCRIPTS = Path(__file__).parents[2] / "clients"
X = np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]], np.float32)
Y = (X @ WEIGHTS).tolist()


@pytest.fixture
def array(tmp_path: Path) -> str:
    path = tmp_path / "x.npy"
    np.save(path, X)
    return str(path)


async def ask(name: str, requirements: tuple[str, ...], script: Path, *arguments: str) -> dict[str, Any]:
    python = await asyncio.to_thread(client_python, name, requirements)
    found: dict[str, Any] = json.loads(await asyncio.to_thread(run, python, script, *arguments))
    return found


async def test_tritonclient(linear: RunningService, array: str) -> None:
    address = linear.rest_url.removeprefix("http://")
    found = await ask(
        "triton",
        TRITON,
        SCRIPTS / "triton_script.py",
        linear.grpc_address,
        address,
        "linear",
        "1",
        array,
        "x",
        "y",
    )
    for face in ("grpc", "http"):
        assert found[f"{face} live"]
        assert found[f"{face} ready"]
        assert found[f"{face} model ready"]
        assert found[f"{face} inputs"] == [["x", "FP32", [-1, 4]]]
    for kind in ("grpc", "http binary", "http json"):
        assert np.allclose(found[kind], Y, atol=1e-5), kind
    assert all(np.allclose(answer, Y, atol=1e-5) for answer in found["stream"])
    assert len(found["stream"]) == 3
    assert found["grpc id"] == "g1"
    assert found["grpc version"] == "1"
    assert "NOT_FOUND" in found["unknown model"]


async def test_tritonclient_reads_configuration_statistics_and_index(linear: RunningService) -> None:
    script = Path(__file__).with_name("triton_repository.py")
    address = linear.rest_url.removeprefix("http://")
    found = await ask("triton", TRITON, script, linear.grpc_address, address, "linear")
    for face in ("grpc", "http"):
        assert found[face]["max_batch_size"] == 8
        assert found[face]["backend"] == "onnxruntime"
        assert found[face]["index"] == [["linear", "1", "READY"]]
        assert found[face]["statistics"] >= 0
        assert found[face]["reloaded"]
        assert "not available" in found[face]["shared memory"]
        assert "takes FP32" in found[face]["wrong type"]


async def test_kserve_client(linear: RunningService, array: str) -> None:
    found = await ask(
        "kserve",
        KSERVE,
        SCRIPTS / "kserve_script.py",
        linear.grpc_address,
        linear.rest_url,
        "linear",
        array,
        "x",
        "y",
    )
    for check in ("live", "ready", "model ready"):
        assert found[f"grpc {check}"]
        assert found[f"rest {check}"]
    for kind in ("grpc", "rest binary", "rest json"):
        assert np.allclose(found[kind], Y, atol=1e-5), kind
    assert found["grpc id"] == "k1"
