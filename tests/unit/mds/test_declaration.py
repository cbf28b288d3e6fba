"""penstock.yaml: what it may say, and that each mistake is told with file, line and field."""

from pathlib import Path

import pytest
from chassis import errors
from mds.adapters.declaration import read_declaration
from mds.domain.execution import Accelerator, Batching
from mds.domain.tensors import DataType

FULL = """\
model: classifier
version: 1.10
description: Tells digits.
framework: onnx
entry: digits:Digits
model_file: model.onnx
code: ["*.py"]
model_files:
  model.onnx: out/final.onnx
requirements: [numpy>=2]
python: ">=3.11"
base_image: python:3.11-slim
signature:
  inputs:
    - {name: x, dtype: FP32, shape: [-1, 64], optional: true, description: pixels}
  outputs:
    - name: y
      dtype: int64
      shape: [-1]
      tolerance: {absolute: 0.1, relative: 0.01}
      top_k: 3
      labels: [a, b]
batching: {max_items: 32, max_delay: 5ms, max_queue: 64}
execution:
  instances: 2
  threads: 4
  accelerator: gpu-preferred
  gpu_memory_bytes: 1024
  options: {spinning: "off"}
labels: {team: vision, build: 7}
allow_pickles: true
"""


def declared(text: str, folder: Path) -> Path:
    file = folder / "penstock.yaml"
    file.write_text(text)
    return file


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    said = read_declaration(declared(FULL, tmp_path))
    assert (said.model, said.version, said.entry) == ("classifier", "1.10", "digits:Digits")
    assert said.model_files == {"out/final.onnx": "model.onnx"}
    assert said.batching == Batching(32, 0.005, 64)
    assert said.execution is not None
    assert said.execution.accelerator is Accelerator.GPU_PREFERRED
    assert said.signature is not None
    output = said.signature.outputs[0]
    assert output.dtype is DataType.INT64
    assert output.tolerance is not None
    assert (output.tolerance.absolute, output.tolerance.relative, output.tolerance.top_k) == (0.1, 0.01, 3)
    assert said.labels == {"team": "vision", "build": "7"}
    assert said.allow_pickles


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_declaration(declared("", tmp_path)).model is None


TENSOR = "signature:\n  inputs:\n    - {name: x, dtype: FP32, shape: [-1]}\n  outputs:\n"
MISTAKES = {
    "unknown field": ("model: m\nmodle_file: x\n", 2, "modle_file", "did you mean 'model_file'?"),
    "unknown field, nothing near": ("model: m\nzzz: x\n", 2, "zzz", "known are model"),
    "given twice": ("model: m\nversion: 1\nmodel: n\n", 3, "model", "twice"),
    "no mapping": ("- a\n", 1, "", "must be a mapping"),
    "text wanted": ("model: [a]\n", 1, "model", "must be a text"),
    "nothing said": ("model:\n", 1, "model", "must be a text"),
    "whole number wanted": (
        "batching:\n  max_items: many\n",
        2,
        "batching.max_items",
        "whole number, not 'many'",
    ),
    "true or false wanted": ("allow_pickles: maybe\n", 1, "allow_pickles", "true or false"),
    "list wanted": ("requirements: numpy\n", 1, "requirements", "must be a list"),
    "no duration": (
        "batching:\n  max_items: 2\n  max_delay: soon\n",
        3,
        "batching.max_delay",
        "a duration such as 5ms",
    ),
    "too long a delay": ("batching:\n  max_items: 2\n  max_delay: 100s\n", 2, "batching", "0 to 60 seconds"),
    "no accelerator": (
        "execution:\n  accelerator: tpu\n",
        2,
        "execution.accelerator",
        "one of cpu, gpu-preferred",
    ),
    "outputs missing": ("signature:\n  inputs: []\n", 2, "signature", "outputs is missing"),
    "no such type": (
        TENSOR + "    - name: y\n      dtype: FLOAT\n      shape: [1]\n",
        5,
        "signature.outputs[0]",
        "use one of BOOL",
    ),
    "shape missing": (
        TENSOR + "    - {name: y, dtype: FP32}\n",
        5,
        "signature.outputs[0]",
        "shape is missing",
    ),
    "size no number": (
        TENSOR + "    - {name: y, dtype: FP32, shape: [n]}\n",
        5,
        "signature.outputs[0].shape[0]",
        "whole number",
    ),
    "no YAML": ("model: m\n  bad: [\n", 2, "", "no YAML"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    text, line, field, why = MISTAKES[name]
    file = declared(text, tmp_path)
    with pytest.raises(errors.InvalidArgument) as caught:
        read_declaration(file)
    assert caught.value.message.startswith(f"{file}:{line}:")
    assert why in caught.value.message
    assert caught.value.metadata.get("field", "") == field
