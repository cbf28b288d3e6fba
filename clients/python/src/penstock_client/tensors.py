"""numpy arrays to and from the raw tensors of the Open Inference Protocol.

Raw contents are little-endian and row-major. `BYTES` elements are each preceded by their length in 4 bytes
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from penstock_client.errors import DataLoss, InvalidArgument

_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}
_LENGTH = struct.Struct("<I")

DATATYPES = (*_NUMPY, "BYTES")
"""Every datatype of the protocol."""


def datatype_of(array: npt.NDArray[Any]) -> str:
    """The protocol's name of an array's element type; InvalidArgument for a type that it has no name for."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    name = _NAMES.get(array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype)
    if name is None:
        raise InvalidArgument(
            f"numpy type {array.dtype} has no counterpart in the Open Inference Protocol; "
            f"convert it to one of {', '.join(DATATYPES)}",
            reason="DATATYPE_UNSUPPORTED",
        )
    return name


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The numpy type of a protocol datatype; `object` for BYTES."""
    if datatype == "BYTES":
        return np.dtype(np.object_)
    try:
        return _NUMPY[datatype]
    except KeyError:
        raise InvalidArgument(
            f"datatype {datatype!r} is none of {', '.join(DATATYPES)}", reason="DATATYPE_UNSUPPORTED"
        ) from None


def as_array(value: npt.ArrayLike, datatype: str | None = None) -> npt.NDArray[Any]:
    """An array of `value`, of the given protocol datatype if one is named; arrays that fit are not copied."""
    if datatype is None:
        return np.asarray(value)
    try:
        return np.asarray(value, dtype=numpy_dtype(datatype))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"cannot make {datatype} of the value: {error}", reason="VALUE_NOT_CONVERTIBLE"
        ) from error


def to_raw(array: npt.NDArray[Any]) -> bytes:
    """The raw contents of an array."""
    if array.dtype.kind in "OSU":
        return b"".join(_element(item) for item in array.ravel(order="C").tolist())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes(order="C")


def from_raw(raw: bytes | memoryview, datatype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """The array that raw contents hold: a read-only view of `raw`, except for BYTES. DataLoss when sizes
    disagree.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _from_bytes(raw, count).reshape(tuple(shape))
    dtype = numpy_dtype(datatype)
    if len(raw) != count * dtype.itemsize:
        raise DataLoss(
            f"{datatype} tensor of shape {list(shape)} takes {count * dtype.itemsize} bytes, "
            f"but {len(raw)} came",
            reason="TENSOR_TRUNCATED",
        )
    return np.frombuffer(raw, dtype=dtype).reshape(tuple(shape))


def _element(item: Any) -> bytes:
    data = item if isinstance(item, bytes) else str(item).encode()
    return _LENGTH.pack(len(data)) + data


def _from_bytes(raw: bytes | memoryview, count: int) -> npt.NDArray[Any]:
    items: list[bytes] = []
    offset, view = 0, memoryview(raw)
    while offset < len(view):
        if offset + _LENGTH.size > len(view):
            break
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += _LENGTH.size
        if offset + length > len(view):
            break
        items.append(bytes(view[offset : offset + length]))
        offset += length
    if len(items) != count or offset != len(view):
        raise DataLoss(
            f"BYTES tensor of {count} elements is damaged: {len(items)} whole elements in {len(raw)} bytes",
            reason="TENSOR_TRUNCATED",
        )
    array = np.empty(count, dtype=np.object_)
    array[:] = items
    return array
