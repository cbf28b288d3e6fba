"""The examples do what they say."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from mds.packaging import build_package

from examples.digits.train import Trained, train
from tests.integration.mds.conftest import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train("1", tmp_path_factory.mktemp("digits") / "1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def digits(trained: Trained, serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    _, package = build_package(trained.folder, trained.folder.parent)
    async with (
        serving(package) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False, timeout=20) as client,
    ):
        yield client


async def test_the_digits_are_classified_as_offline(trained: Trained, digits: httpx.AsyncClient) -> None:
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(trained.images.shape),
        "parameters": {"binary_data_size": trained.images.nbytes},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = await digits.post(
        "/v2/models/classifier/infer",
        content=head + trained.images.tobytes(),
        headers={"inference-header-content-length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert np.array_equal(outputs["digit"], trained.predictions)
    assert trained.accuracy > 0.93
    assert np.mean(np.array(outputs["digit"]) == trained.labels) == trained.accuracy


async def test_the_digits_refuse_what_is_no_image(digits: httpx.AsyncClient) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [99.0] * 64}
    answer = await digits.post("/v2/models/classifier/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert answer.json()["error"] == "pixels must be from 0 to 16"


async def test_the_tone_of_texts(tmp_path: Path, serving: Serving) -> None:
    _, package = build_package(EXAMPLES / "tone", tmp_path)
    texts = ["What a wonderful day", "I hate this", "plain"]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [3], "data": texts}
    async with (
        serving(package) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        answer = await client.post("/v2/models/tone/infer", json={"inputs": [tensor]})
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs == {"score": [1.0, -1.0, 0.0], "words": [1, 1, 0]}
