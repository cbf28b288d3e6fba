"""One stack for all whole-chain tests: three services as separate processes, packages of a real model.

Each test works in a project of its own, so that they do not meet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from penstock_client import Address, Client, Settings
from penstock_client.local import processes, stack, state
from penstock_client.local.state import StackState

ROOT = Path(__file__).parents[2]
OLD, NEW = "1.0.0", "2.0.0"


@dataclass(frozen=True)
class Digits:
    """The trained example: package files, held-out images and labels, scores offline."""

    folder: Path
    packages: Mapping[str, Path]
    images: np.ndarray
    labels: np.ndarray
    accuracy: Mapping[str, float]


@dataclass
class Stack:
    """The running services."""

    options: stack.StackOptions
    state: StackState

    @property
    def settings(self) -> Settings:
        """Settings of a client of them."""
        found = self.state.services
        return replace(
            Settings(timeout=20),
            **{name: Address(found[name].grpc, found[name].rest) for name in ("aigw", "dplo", "mds")},
        )

    def restart(self) -> None:
        """Starts what does not run, where it ran before."""
        self.state = stack.start(self.options, lambda service, what: None)

    def log(self, name: str) -> str:
        """A service's log."""
        return Path(self.state.services[name].log).read_text(errors="replace")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    _run(sys.executable, str(ROOT / "examples/digits/train.py"), str(folder))
    packages = {}
    for version in (OLD, NEW):
        packages[version] = folder / f"classifier-{version}.mdspkg"
        _run(sys.executable, "-m", "mds", "build", str(folder / version), "--output", str(packages[version]))
    held_out = np.load(folder / "held_out.npz")
    scores = json.loads((folder / "scores.json").read_text())
    accuracy = {version: scores[version]["accuracy"] for version in (OLD, NEW)}
    return Digits(folder, packages, held_out["images"], held_out["labels"], accuracy)


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = stack.StackOptions(
        tmp_path_factory.mktemp("stack"), first_port=0, traces="file", sample_ratio=0.0
    )
    running = stack.start(options, lambda service, what: None)
    yield Stack(options, running)
    stack.stop(options.folder, lambda service, what: None)
    assert processes.marked(running.id) == []
    assert state.read(options.folder) is None


@pytest.fixture
def client(penstock: Stack) -> Iterator[Client]:
    with Client(penstock.settings) as made:
        yield made


@pytest.fixture
def project(client: Client, digits: Digits) -> Iterator[str]:
    """A project that has both packages; what is deployed in it is taken away at the end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    for path in digits.packages.values():
        client.packages.upload(path, project=name)
    yield name
    client.deployments.delete(f"{name}/classifier", allow_missing=True)


@pytest.fixture
def declare(project: str) -> Callable[..., dict[str, object]]:
    """Declarations of the project's deployment."""

    def make(
        version: str, *, replicas: int = 1, steps: list[dict[str, object]] | None = None
    ) -> dict[str, object]:
        package = f"projects/{project}/models/classifier/packages/{version}"
        return {
            "name": f"projects/{project}/deployments/classifier",
            "model": f"projects/{project}/models/classifier",
            "versions": [{"version": version, "package": {"package": package}, "replicas": replicas}],
            "rollout": {"steps": steps or []},
        }

    return make


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
