"""Each service by itself in a clean environment: installed, started, asked for its health, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.venvs import uv

ROOT = Path(__file__).parents[2]
SERVICES = ("aigw", "dplo", "mds")
NEEDED = {name: f"penstock-{name}" + ("[onnx]" if name == "mds" else "") for name in SERVICES}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for project in ("protos/gen/python", "services/chassis", *(f"services/{name}" for name in SERVICES)):
        uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT / project))
    return folder


@pytest.fixture(params=SERVICES)
def installed(request: pytest.FixtureRequest, wheels: Path, tmp_path: Path) -> tuple[str, Path]:
    """One service's distribution and what it needs, in an environment of its own."""
    name: str = request.param
    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    uv("pip", "install", "--quiet", "--python", str(python), "--find-links", str(wheels), NEEDED[name])
    return name, python


@pytest.fixture
def running(
    installed: tuple[str, Path], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """The service, started by its own command in an empty folder, and its addresses."""
    name, python = installed
    addresses, log = tmp_path / "addresses.json", tmp_path / "log"
    prefix = name.upper()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        f"{prefix}_GRPC__PORT": "0",
        f"{prefix}_REST__PORT": "0",
        f"{prefix}_ADDRESSES_FILE": str(addresses),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python.parent / name), "run"], cwd=tmp_path, env=environ, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 30
        while not addresses.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, json.loads(addresses.read_text())
    finally:
        process.kill()
        process.wait()


def test_a_service_needs_no_other(
    installed: tuple[str, Path], running: tuple[subprocess.Popen[bytes], dict[str, str]]
) -> None:
    name, python = installed
    process, addresses = running

    with urllib.request.urlopen(f"{addresses['rest']}/healthz", timeout=10) as response:
        assert response.status == 200
    health = subprocess.run(
        [
            str(python),
            "-c",
            "import sys, grpc\n"
            "from grpc_health.v1 import health_pb2, health_pb2_grpc\n"
            "stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(sys.argv[1]))\n"
            "print(stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status)",
            addresses["grpc"],
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert health.stdout.strip() == "1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    others = [other for other in (*SERVICES, "penstock_client") if other != name]
    found = subprocess.run(
        [
            str(python),
            "-c",
            "import importlib.util, sys\nprint([n for n in sys.argv[1:] if importlib.util.find_spec(n)])",
            *others,
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=python.parent,
    )
    assert found.stdout.strip() == "[]"
