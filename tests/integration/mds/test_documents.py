"""The class in docs/modelers.md works, and the declaration there can be read."""

import re
from pathlib import Path

import httpx
import pytest
from mds.adapters.declaration import read_declaration
from mds.packaging import build_package

from tests.integration.mds.conftest import Serving

DOCUMENT = (Path(__file__).parents[3] / "docs" / "modelers.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.M | re.S)
    assert isinstance(found, str)
    return found


async def test_the_class_is_built_and_answers(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parity.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)
    _, package = build_package("parity:Parity", tmp_path)
    tensor = {"name": "number", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]}
    async with (
        serving(package) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        answer = await client.post("/v2/models/parity/infer", json={"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == [True, False, True]
        refused = await client.post(
            "/v2/models/parity/infer", json={"inputs": [{**tensor, "data": [-1, 1, 1]}]}
        )
        assert refused.json()["error"] == "numbers must not be negative"


def test_the_declaration_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text(block("yaml"))
    said = read_declaration(tmp_path / "penstock.yaml")
    assert said.batching is not None
    assert said.batching.max_delay == 0.005
    assert said.execution is not None
    assert said.execution.instances == 2
