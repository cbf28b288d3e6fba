"""numpy arrays to and from the raw tensors of the Open Inference Protocol.

Raw contents are little-endian and row-major. `BYTES` elements are each preceded by their length in 4 bytes
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md).
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock_client.errors import DataLoss, InvalidArgument

if TYPE_CHECKING:
    # numpy takes longer to import than all the rest of the client, and most commands never need it.
    import numpy as np
    import numpy.typing as npt

_LENGTH = struct.Struct("<I")

DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
)
"""Every datatype of the protocol."""


@functools.cache
def _dtypes() -> Mapping[str, np.dtype[Any]]:
    import ml_dtypes
    import numpy as np

    codes = (
        "?",
        "u1",
        "<u2",
        "<u4",
        "<u8",
        "i1",
        "<i2",
        "<i4",
        "<i8",
        "<f2",
        "<f4",
        "<f8",
        ml_dtypes.bfloat16,
    )
    return {name: np.dtype(code) for name, code in zip(DATATYPES, codes, strict=False)}


@functools.cache
def _names() -> Mapping[np.dtype[Any], str]:
    return {dtype: name for name, dtype in _dtypes().items()}


def datatype_of(array: npt.NDArray[Any]) -> str:
    """The protocol's name of an array's element type; InvalidArgument for a type that it has no name for."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    name = _names().get(array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype)
    if name is None:
        raise InvalidArgument(
            f"numpy type {array.dtype} has no counterpart in the Open Inference Protocol; "
            f"convert it to one of {', '.join(DATATYPES)}",
            reason="DATATYPE_UNSUPPORTED",
        )
    return name


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The numpy type of a protocol datatype; `object` for BYTES."""
    import numpy as np

    if datatype == "BYTES":
        return np.dtype(np.object_)
    try:
        return _dtypes()[datatype]
    except KeyError:
        raise InvalidArgument(
            f"datatype {datatype!r} is none of {', '.join(DATATYPES)}", reason="DATATYPE_UNSUPPORTED"
        ) from None


def as_array(value: npt.ArrayLike, datatype: str | None = None) -> npt.NDArray[Any]:
    """An array of `value`, of the given protocol datatype if one is named; arrays that fit are not copied."""
    import numpy as np

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
    import numpy as np

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
    import numpy as np

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
