"""The digits example, trained: both versions as sources of packages, and what they say of held-out images.

`python -m deploy.digits FOLDER` trains, in a process of its own; `load` reads what it left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
MODEL, OLD, NEW = "classifier", "1", "2"
INPUT, OUTPUT = "image", "digit"


@dataclass(frozen=True)
class Digits:
    """What training left."""

    folder: Path
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    predictions: Mapping[str, npt.NDArray[np.int64]]
    """What each version says of the images offline, without Penstock."""

    def accuracy(self, version: str) -> float:
        """The share of the held-out images that a version gets right offline."""
        return float((self.predictions[version] == self.labels).mean())

    def source(self, version: str) -> Path:
        """The folder that `mds build` takes."""
        return self.folder / version

    def package(self, version: str) -> Path:
        """Where its package goes."""
        return self.folder / f"{MODEL}-{version}.mdspkg"


def train(folder: Path) -> Digits:
    """Trains both versions into a folder."""
    run([sys.executable, "-W", "ignore", "-m", "deploy.digits", str(folder)])
    return load(folder)


def load(folder: Path) -> Digits:
    """What was trained into a folder before."""
    with np.load(folder / "held_out.npz") as held:
        predictions = {version: held[f"predictions_{version}"] for version in (OLD, NEW)}
        return Digits(folder, held["images"], held["labels"], predictions)


def build(digits: Digits, version: str, output: Path | None = None) -> Path:
    """Builds a version's package with `mds build`."""
    target = output or digits.package(version)
    run([sys.executable, "-m", "mds", "build", str(digits.source(version)), "--out", str(target)])
    return target


def declaration(project: str, version: str, *, replicas: int = 1, steps: object = ()) -> dict[str, Any]:
    """The deployment of one version, as it would stand in a YAML file."""
    package = f"projects/{project}/models/{MODEL}/packages/{version}"
    return {
        "name": f"projects/{project}/deployments/{MODEL}",
        "model": f"projects/{project}/models/{MODEL}",
        "versions": [{"version": version, "package": {"package": package}, "replicas": replicas}],
        "rollout": {"steps": steps},
    }


def run(command: list[str]) -> None:
    """A command that must succeed; its output is the error when it does not."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:5])} failed:\n{done.stdout}{done.stderr}")


def _main(folder: Path) -> None:
    from examples.digits.train import train as train_version

    trained = {version: train_version(version, folder / version) for version in (OLD, NEW)}
    predictions = {f"predictions_{version}": found.predictions for version, found in trained.items()}
    np.savez(folder / "held_out.npz", images=trained[OLD].images, labels=trained[OLD].labels, **predictions)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
