"""What a model takes and gives: tensors by name with type, shape and how two outputs are judged equal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mds.domain.tensors import DYNAMIC, DataType, shape_text

MAX_TENSORS = 256
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


@dataclass(frozen=True, slots=True)
class OutputTolerance:
    """How far two values of an output may differ and still agree, as in numpy.isclose.

    `|a - b| <= absolute + relative * |b|` for each element. With `top_k` above 0 the output is a score per
    class along the last axis, and it is the set of the k best classes that must agree, not the scores.
    """

    absolute: float = 0.0
    relative: float = 0.0
    top_k: int = 0

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise ValueError(f"tolerance {name} must be a finite number of at least 0, not {value!r}")
        if not (isinstance(self.top_k, int) and 0 <= self.top_k <= 10_000):
            raise ValueError(f"tolerance top_k must be a whole number from 0 to 10000, not {self.top_k!r}")


@dataclass(frozen=True, slots=True, init=False)
class TensorSpec:
    """One input or output: `TensorSpec("image", "FP32", [-1, 64])`.

    `dtype` is a protocol name or a numpy dtype; `shape` has -1 for any size, and where the model batches its
    first dimension is -1 and counts items. `optional` inputs may be left out by callers. `tolerance` and
    `top_k` say how two versions' outputs are compared; `labels` names the indexes of the last dimension.
    Raises ValueError.
    """

    name: str
    dtype: DataType
    shape: tuple[int, ...]
    optional: bool
    tolerance: OutputTolerance | None
    description: str
    labels: tuple[str, ...]

    def __init__(
        self,
        name: str,
        dtype: "DataType | np.dtype[Any] | type | str",
        shape: Sequence[int],
        *,
        optional: bool = False,
        tolerance: OutputTolerance | float | None = None,
        top_k: int = 0,
        description: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"a tensor needs a name of 1 to 256 printable characters, not {name!r}")
        if not isinstance(shape, list | tuple):
            raise ValueError(f"the shape of {name!r} must be a list such as [-1, 64], not {shape!r}")
        for size in shape:
            if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < DYNAMIC:
                raise ValueError(
                    f"the shape of {name!r} has {size!r}; each size is a whole number, or -1 for any"
                )
        try:
            kind = DataType.of(dtype)
        except ValueError as error:
            raise ValueError(f"the type of {name!r}: {error}") from None
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "dtype", kind)
        object.__setattr__(self, "shape", tuple(int(size) for size in shape))
        object.__setattr__(self, "optional", bool(optional))
        object.__setattr__(self, "tolerance", _tolerance(tolerance, top_k))
        object.__setattr__(self, "description", description)
        object.__setattr__(self, "labels", tuple(labels))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.value}{shape_text(self.shape)}"


def _tolerance(tolerance: OutputTolerance | float | None, top_k: int) -> OutputTolerance | None:
    if isinstance(tolerance, int | float):
        tolerance = OutputTolerance(absolute=float(tolerance))
    if not top_k:
        return tolerance
    base = tolerance or OutputTolerance()
    return OutputTolerance(base.absolute, base.relative, top_k)


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs in order. Raises ValueError for duplicate names, or none at all."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_by_name: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)
    output_by_name: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            if not 1 <= len(specs) <= MAX_TENSORS:
                raise ValueError(f"a model needs 1 to {MAX_TENSORS} {kind}s, not {len(specs)}")
            names = [spec.name for spec in specs]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} {twice[0]!r} is declared twice")
        for spec in self.inputs:
            if spec.tolerance is not None:
                raise ValueError(f"input {spec.name!r} has a tolerance; only outputs are compared")
        for spec in self.outputs:
            if spec.optional:
                raise ValueError(f"output {spec.name!r} is optional; only inputs can be")
        object.__setattr__(self, "input_by_name", {spec.name: spec for spec in self.inputs})
        object.__setattr__(self, "output_by_name", {spec.name: spec for spec in self.outputs})

    @property
    def batches(self) -> bool:
        """Whether requests can share a run: every tensor's first dimension is dynamic."""
        return all(spec.shape and spec.shape[0] == DYNAMIC for spec in (*self.inputs, *self.outputs))
