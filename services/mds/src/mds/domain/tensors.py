"""Tensor types and shapes: the names of the Open Inference Protocol and their numpy counterparts.

Raw contents are little-endian, row-major, without padding, as the protocol demands; numpy arrays of the same
dtype are views of them, never copies.
"""

import enum
import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DYNAMIC = -1


class DataType(enum.Enum):
    """Type of an element; the value is its name in the Open Inference Protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype; `BYTES` is an array of Python objects (bytes)."""
        return _NUMPY[self]

    @property
    def size(self) -> int:
        """Bytes of one element; 0 for BYTES, whose elements have any length."""
        return 0 if self is DataType.BYTES else _NUMPY[self].itemsize

    @classmethod
    def of(cls, dtype: "np.dtype[Any] | type | str | DataType") -> "DataType":
        """The type of a protocol name (`"FP32"`), a numpy dtype or scalar type (`np.float32`, `"float32"`).

        Raises ValueError that names the valid types.
        """
        if isinstance(dtype, DataType):
            return dtype
        if isinstance(dtype, str) and dtype.upper() in cls.__members__:
            return cls[dtype.upper()]
        found: DataType | None
        try:
            found = _OF_NUMPY.get(np.dtype(dtype).newbyteorder("="))
        except TypeError:
            found = None
        if found is None and np_kind(dtype) in ("U", "S", "O"):
            found = cls.BYTES
        if found is None:
            raise ValueError(f"{dtype!r} is no tensor type; use one of {', '.join(cls.__members__)}")
        return found


def np_kind(dtype: object) -> str:
    """The kind letter of a numpy dtype, or empty for what numpy does not know."""
    try:
        return np.dtype(dtype).kind  # type: ignore[call-overload, no-any-return]  # any object may be asked about
    except TypeError:
        return ""


_NUMPY: dict[DataType, np.dtype[Any]] = {
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UINT8: np.dtype(np.uint8),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype(np.int8),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
    DataType.BF16: np.dtype(ml_dtypes.bfloat16),
    DataType.BYTES: np.dtype(object),
}
_OF_NUMPY = {dtype: kind for kind, dtype in _NUMPY.items() if kind is not DataType.BYTES}


def element_count(shape: Sequence[int]) -> int:
    """Number of elements of a shape without dynamic dimensions."""
    return math.prod(shape)


def shape_matches(shape: Sequence[int], spec: Sequence[int]) -> bool:
    """Whether a concrete shape fits a declared one, where -1 fits any size."""
    if len(shape) != len(spec):
        return False
    for have, want in zip(shape, spec, strict=True):  # noqa: SIM110 - a generator would cost twice as much
        if want != DYNAMIC and have != want:
            return False
    return True


def shape_text(shape: Sequence[int]) -> str:
    """A shape as people write it, `[-1, 64]`."""
    return f"[{', '.join(map(str, shape))}]"
