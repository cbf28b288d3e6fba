"""Other people's clients, unmodified, through the gateway."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from penstock_client import Client

from deploy.digits import INPUT, OLD, OUTPUT, Digits
from tests.clients.venvs import KSERVE, TRITON, client_python, run
from tests.e2e.conftest import Stack

SCRIPTS = Path(__file__).parents[1] / "clients"


@pytest.fixture
def images(digits: Digits, tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, digits.images[:5])
    return path


@pytest.fixture
def expected(
    client: Client, digits: Digits, project: str, declare: Callable[..., dict[str, object]]
) -> list[object]:
    client.deployments.apply(declare(OLD))
    found: list[object] = client.predict(f"{project}/classifier", {INPUT: digits.images[:5]})[OUTPUT].tolist()
    return found


@pytest.mark.parametrize("version", ["", OLD], ids=["any version", "one version"])
def test_tritonclient_gets_the_same_answers_through_the_gateway(
    penstock: Stack, project: str, images: Path, expected: list[object], version: str
) -> None:
    at = penstock.settings.aigw
    answer = run(
        client_python("triton", TRITON),
        SCRIPTS / "triton_script.py",
        at.grpc,
        at.rest.removeprefix("http://"),
        f"{project}/classifier",
        version,
        str(images),
        INPUT,
        OUTPUT,
    )

    found = json.loads(answer)
    assert found["grpc"] == found["http binary"] == found["http json"] == expected
    assert found["stream"] == [expected] * 3
    assert (found["grpc id"], found["grpc version"]) == ("g1", OLD)
    assert found["grpc inputs"] == found["http inputs"] == [[INPUT, "FP32", [-1, 64]]]
    assert all(
        found[f"{face} {what}"] for face in ("grpc", "http") for what in ("live", "ready", "model ready")
    )
    assert found["unknown model"] == "StatusCode.NOT_FOUND"


def test_the_kserve_client_gets_the_same_answers_through_the_gateway(
    penstock: Stack, project: str, images: Path, expected: list[object]
) -> None:
    at = penstock.settings.aigw
    answer = run(
        client_python("kserve", KSERVE),
        SCRIPTS / "kserve_script.py",
        at.grpc,
        at.rest,
        f"{project}/classifier",
        str(images),
        INPUT,
        OUTPUT,
    )

    found = json.loads(answer)
    assert found["grpc"] == found["rest binary"] == found["rest json"] == expected
    assert found["grpc id"] == "k1"
    assert all(
        found[f"{face} {what}"] for face in ("grpc", "rest") for what in ("live", "ready", "model ready")
    )
