"""The Open Inference Protocol over HTTP, on a real server."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from google.api import annotations_pb2
from inference import grpc_service_pb2

from tests.integration.mds.conftest import WEIGHTS, Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def body(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": X.tolist()}
    return {"inputs": [{**tensor, **changes}]}


def binary(array: np.ndarray, **request: Any) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(array.shape),
        "parameters": {"binary_data_size": array.nbytes},
    }
    head = json.dumps({"inputs": [tensor], **request}).encode()
    return head + array.tobytes(), {"inference-header-content-length": str(len(head))}


async def test_json_tensors_nested_or_flat(http: httpx.AsyncClient) -> None:
    for data in (X.tolist(), X.ravel().tolist()):
        answer = await http.post("/v2/models/linear/infer", json={"id": "7", **body(data=data)})
        assert answer.status_code == 200, answer.text
        tree = answer.json()
        assert (tree["model_name"], tree["model_version"], tree["id"]) == ("linear", "1", "7")
        (output,) = tree["outputs"]
        assert output["shape"] == [2, 3]
        assert np.allclose(np.reshape(output["data"], (2, 3)), X @ WEIGHTS, atol=1e-5)


@pytest.mark.parametrize("size", [2, 30_000])
async def test_binary_tensors_both_ways(size: int, http: httpx.AsyncClient) -> None:
    array = np.random.default_rng(2).standard_normal((size, 4)).astype(np.float32)
    content, headers = binary(array, parameters={"binary_data_output": True})
    answer = await http.post("/v2/models/demo/linear/versions/1/infer", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    tree = json.loads(answer.content[:length])
    assert tree["model_name"] == "demo/linear"
    assert tree["outputs"][0]["parameters"]["binary_data_size"] == len(answer.content) - length
    found = np.frombuffer(answer.content[length:], np.float32).reshape(size, 3)
    assert np.allclose(found, array @ WEIGHTS, atol=1e-5)


async def test_each_output_chooses_binary_for_itself(http: httpx.AsyncClient) -> None:
    content, headers = binary(X, outputs=[{"name": "y", "parameters": {"binary_data": False}}])
    answer = await http.post("/v2/models/linear/infer", content=content, headers=headers)
    assert "inference-header-content-length" not in answer.headers
    assert np.allclose(answer.json()["outputs"][0]["data"], (X @ WEIGHTS).ravel(), atol=1e-5)


async def test_compressed_bodies_are_read(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(json.dumps(body()).encode())
    answer = await http.post("/v2/models/linear/infer", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    cut = await http.post(
        "/v2/models/linear/infer", content=packed[:-12], headers={"content-encoding": "gzip"}
    )
    assert cut.status_code == 400


BAD: dict[str, tuple[str, Any, int, str]] = {
    "malformed JSON": ("linear", b'{"inputs": [', 400, "no JSON"),
    "not an object": ("linear", [], 400, "must be an object"),
    "no inputs": ("linear", {}, 400, "needs `inputs`"),
    "unknown model": ("nobody", body(), 404, "serves linear"),
    "unknown version": ("linear/versions/9", body(), 404, "no version '9'"),
    "wrong type": ("linear", body(datatype="FP64"), 400, "takes FP32"),
    "wrong shape": ("linear", body(shape=[4, 2]), 400, "[4, 2]"),
    "shape of texts": ("linear", body(shape=["2", "4"]), 400, "whole numbers"),
    "too few elements": ("linear", body(data=[1.0]), 400, "1 elements"),
    "texts for numbers": ("linear", body(data=["a"] * 8), 400, "cannot hold 'a'"),
    "booleans for numbers": ("linear", body(data=[True] * 8), 400, "cannot hold True"),
    "uneven nesting": ("linear", body(data=[[1, 2], 3]), 400, "unevenly"),
    "no data": ("linear", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4]}]}, 400, "no data"),
    "unknown input": ("linear", body(name="z"), 400, "no input 'z'"),
    "duplicate input": ("linear", {"inputs": body()["inputs"] * 2}, 400, "twice"),
    "unknown output": ("linear", {**body(), "outputs": [{"name": "z"}]}, 400, "no output 'z'"),
    "binary data too short": (
        "linear",
        body(parameters={"binary_data_size": 32}, data=None) | {},
        400,
        "one is enough",
    ),
    "classification": (
        "linear",
        {**body(), "outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        501,
        "not available",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_say_what_is_wrong(name: str, http: httpx.AsyncClient) -> None:
    path, content, code, text = BAD[name]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = await http.post(f"/v2/models/{path}/infer", content=data)
    assert answer.status_code == code, answer.text
    tree = answer.json()
    assert text in tree["error"]
    assert tree["status"]["details"][0]["reason"].isupper()


HEADERS = {"larger than the body": "999", "no number": "x", "negative": "-1", "too short": "5"}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_wrong_header_length_is_refused(name: str, http: httpx.AsyncClient) -> None:
    content, _ = binary(X)
    headers = {"inference-header-content-length": HEADERS[name]}
    answer = await http.post("/v2/models/linear/infer", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_truncated_and_left_over_binary_data_is_refused(http: httpx.AsyncClient) -> None:
    content, headers = binary(X)
    for changed, text in ((content[:-1], "31 are left"), (content + b"!", "1 bytes are left")):
        answer = await http.post("/v2/models/linear/infer", content=changed, headers=headers)
        assert answer.status_code == 400
        assert text in answer.json()["error"]


async def test_an_oversize_body_is_refused(serving: Serving, linear_package: Path) -> None:
    async with (
        serving(linear_package, limits={"max_body_bytes": 1000}) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        answer = await client.post("/v2/models/linear/infer", content=b"x" * 2000)
        assert answer.status_code == 413
        assert answer.json()["status"]["details"][0]["reason"] == "BODY_TOO_LARGE"
        bomb = await client.post(
            "/v2/models/linear/infer",
            content=gzip.compress(b" " * 500_000),
            headers={"content-encoding": "gzip"},
        )
        assert bomb.status_code == 413


async def test_a_deadline_in_the_header_counts(serving: Serving, moody_package: Path) -> None:
    slow = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [99]}]}
    async with (
        serving(moody_package) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        answer = await client.post("/v2/models/moody/infer", json=slow, headers={"grpc-timeout": "50m"})
        assert answer.status_code == 504
        wrong = await client.post("/v2/models/moody/infer", json=slow, headers={"grpc-timeout": "soon"})
        assert wrong.status_code == 400


Check = Callable[[Any], bool]
GETS: dict[str, tuple[str, int, Check | None]] = {
    "server": ("/v2", 200, lambda t: t["name"] == "penstock" and "statistics" in t["extensions"]),
    "live": ("/v2/health/live", 200, None),
    "ready": ("/v2/health/ready", 200, None),
    "metadata": ("/v2/models/demo/linear", 200, lambda t: t["inputs"][0]["shape"] == [-1, 4]),
    "metadata of a version": ("/v2/models/linear/versions/1", 200, lambda t: t["versions"] == ["1"]),
    "model ready": ("/v2/models/linear/ready", 200, None),
    "encoded slash": ("/v2/models/demo%2Flinear/ready", 200, None),
    "config": ("/v2/models/linear/config", 200, lambda t: t["max_batch_size"] == 8),
    "stats": (
        "/v2/models/linear/stats",
        200,
        lambda t: t["model_stats"][0]["inference_count"] >= 0,
    ),
    "all stats": ("/v2/models/stats", 200, lambda t: len(t["model_stats"]) == 1),
    "nobody": ("/v2/models/nobody", 404, None),
    "nothing": ("/v2/what", 404, lambda t: "paths are" in t["error"]),
    "shared memory": ("/v2/systemsharedmemory/status", 501, None),
    "metrics": ("/metrics", 200, None),
    "openapi": ("/openapi.json", 200, None),
    "not with GET": ("/v2/models/linear/infer", 405, lambda t: "use POST" in t["error"]),
}


@pytest.mark.parametrize("name", GETS)
async def test_the_other_paths(name: str, http: httpx.AsyncClient) -> None:
    path, code, check = GETS[name]
    answer = await http.get(path)
    assert answer.status_code == code, answer.text
    if check is not None:
        assert check(answer.json()), answer.text


async def test_the_repository_over_http(http: httpx.AsyncClient) -> None:
    index = await http.post("/v2/repository/index", json={"ready": True})
    assert index.json()[0]["state"] == "READY"
    assert (await http.post("/v2/repository/models/linear/unload")).status_code == 200
    assert (await http.get("/v2/models/linear/ready")).status_code == 503
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.post("/v2/models/linear/infer", json=body())).status_code == 503
    assert (await http.post("/v2/repository/models/linear/load")).status_code == 200
    assert (await http.get("/v2/models/linear/ready")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200


async def test_metrics_count_what_was_done(http: httpx.AsyncClient) -> None:
    await http.post("/v2/models/linear/infer", json=body())
    text = (await http.get("/metrics")).text
    assert 'mds_requests_total{code="OK",model="linear",version="1"}' in text
    assert "mds_queue_seconds_bucket" in text
    assert "mds_batch_items_count" in text


def documented() -> list[tuple[str, str]]:
    """Every path of the http annotations, with names filled in."""
    found = []
    for method in grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for binding in (rule, *rule.additional_bindings):
            verb = binding.WhichOneof("pattern")
            if verb is None:
                continue
            path = re.sub(r"{(name|model_name)=\*/\*}", "demo/linear", getattr(binding, verb))
            filled = {"{version}": "1", "{model_version}": "1", "{repository_name}": "main"}
            if "sharedmemory" not in path:
                filled |= {"{name}": "linear", "{model_name}": "linear"}
            for part, value in filled.items():
                path = path.replace(part, value)
            found.append((verb.upper(), path.replace("{name}", "region")))
    return found


@pytest.mark.parametrize(("verb", "path"), documented())
async def test_every_path_of_the_contract_is_served(verb: str, path: str, http: httpx.AsyncClient) -> None:
    content = json.dumps(body()).encode() if path.endswith("/infer") else b""
    answer = await http.request(verb, path, content=content)
    assert answer.status_code in (200, 501), (verb, path, answer.text)
    if answer.status_code == 501:
        assert re.search("sharedmemory|trace|logging", path)
    if path.endswith("/unload"):
        await http.post("/v2/repository/models/linear/load")


async def test_there_are_many_paths() -> None:
    assert len(documented()) > 35
