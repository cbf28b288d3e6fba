"""Trains the digits classifier on scikit-learn's handwritten digits and exports it to ONNX.

The data (1797 images of UCI's optical recognition of handwritten digits) comes inside scikit-learn. Version 1
is a logistic regression, version 2 a support vector machine, which is better. Run again, it gives the same
files.

    python examples/digits/train.py 1 OUTPUT_FOLDER
"""

import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
SEED = 7
VERSIONS = ("1", "2")


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to be built, and what it was held against.

    `folder` has everything that `mds build` needs. `images` (n×64, float32, 0 to 16) and `labels` were kept
    out of training; `predictions` is what the model says of them here, `accuracy` the share that is right.
    """

    folder: Path
    version: str
    model_file: Path
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    accuracy: float


def split() -> tuple[Any, Any, Any, Any]:
    """Images and labels to train with, and those that are held out (a third, the same each time)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = data.data.astype(np.float32)
    labels = data.target.astype(np.int64)
    kept, held, kept_labels, held_labels = train_test_split(
        images, labels, test_size=1 / 3, random_state=SEED, stratify=labels
    )
    return kept, held, kept_labels, held_labels


def estimator(version: str) -> Any:
    """The untrained model of a version."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if version == "1":
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    if version == "2":
        return MLPClassifier((128,), learning_rate_init=0.01, max_iter=60, random_state=SEED)
    raise ValueError(f"there is no version {version!r}; there are {', '.join(VERSIONS)}")


def train(version: str, folder: Path) -> Trained:
    """Trains a version, and writes model and code into a folder for `mds build`."""
    images, held, labels, held_labels = split()
    model = estimator(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser says when it stops before it converged
        model.fit(images / 16, labels)
    predictions = model.predict(held / 16).astype(np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    model_file = folder / "model.onnx"
    model_file.write_bytes(_onnx(model))
    shutil.copyfile(HERE / "digits.py", folder / "digits.py")
    (folder / "penstock.yaml").write_text(
        f'entry: digits:Digits\nversion: "{version}"\nmodel_file: model.onnx\ncode: [digits.py]\n'
    )
    accuracy = float((predictions == held_labels).mean())
    return Trained(folder, version, model_file, held, held_labels, predictions, accuracy)


def _onnx(model: Any) -> bytes:
    """Only the probabilities are exported: the digit follows from them."""
    from skl2onnx import to_onnx

    graph = to_onnx(
        model,
        np.zeros((1, 64), np.float32),
        options={id(model): {"zipmap": False, "output_class_labels": False}},
        target_opset=17,
        name="digits",
    )
    node = next(output for output in graph.graph.output if output.name == "probabilities")
    del graph.graph.output[:]
    graph.graph.output.append(node)
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def main() -> int:
    """Trains one version into a folder."""
    if len(sys.argv) != 3 or sys.argv[1] not in VERSIONS:
        print(__doc__, file=sys.stderr)
        return 2
    trained = train(sys.argv[1], Path(sys.argv[2]))
    print(
        f"version {trained.version}: {trained.accuracy:.4f} of {len(trained.labels)} held-out images "
        "are right"
    )
    print(f"build it: mds build {trained.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
