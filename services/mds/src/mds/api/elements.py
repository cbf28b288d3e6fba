"""Elements of tensors between bytes, JSON and numpy: views where the layout allows, for both faces."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from chassis import errors

from mds.app.dataplane import bad_contents
from mds.domain.signature import TensorSpec
from mds.domain.tensors import Array, DataType, element_count, shape_text

_LENGTH = struct.Struct("<I")


def from_raw(spec: TensorSpec, shape: Sequence[int], raw: bytes | memoryview) -> Array:
    """A view of raw contents. Raises InvalidArgument if their size is not that of the shape."""
    kind = spec.dtype
    if kind is DataType.BYTES:
        return _from_length_prefixed(spec, shape, raw)
    expected = element_count(shape) * kind.size
    if len(raw) != expected:
        raise bad_contents(
            f"input {spec.name!r} has {len(raw)} bytes of raw contents; {kind.value} of shape "
            f"{shape_text(shape)} "
            f"needs {expected}",
            spec.name,
        )
    array = np.frombuffer(raw, kind.numpy).reshape(shape)
    # A part of a larger buffer may begin anywhere, and frameworks read whole elements.
    return array if array.flags.aligned else array.copy()


def _from_length_prefixed(spec: TensorSpec, shape: Sequence[int], raw: bytes | memoryview) -> Array:
    count = element_count(shape)
    if count * 4 > len(raw):
        raise bad_contents(
            f"input {spec.name!r} has {len(raw)} bytes of raw contents, too few for {count} elements "
            "of BYTES",
            spec.name,
        )
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        if at + 4 > len(raw):
            raise bad_contents(f"the raw contents of input {spec.name!r} end in element {index}", spec.name)
        (size,) = _LENGTH.unpack_from(raw, at)
        at += 4
        if at + size > len(raw):
            raise bad_contents(f"the raw contents of input {spec.name!r} end in element {index}", spec.name)
        array[index] = bytes(raw[at : at + size])
        at += size
    if at != len(raw):
        raise bad_contents(
            f"the raw contents of input {spec.name!r} have {len(raw) - at} bytes more than its "
            f"{count} elements",
            spec.name,
        )
    return array.reshape(shape)


def to_raw(array: Array, kind: DataType) -> bytes | memoryview:
    """Raw contents of an array: its own memory where it is contiguous."""
    if kind is DataType.BYTES:
        parts: list[bytes] = []
        for item in array.ravel():
            parts.append(_LENGTH.pack(len(item)))
            parts.append(item)
        return b"".join(parts)
    if array.nbytes < 4096:
        return array.tobytes()
    if kind is DataType.BF16:
        array = array.view(np.uint16)
    return np.ascontiguousarray(array).data.cast("B")


def from_values(spec: TensorSpec, shape: Sequence[int], values: Sequence[Any]) -> Array:
    """An array of typed contents. Raises InvalidArgument for a wrong number, or one that the type cannot
    hold.
    """
    count = element_count(shape)
    if len(values) != count:
        raise bad_contents(
            f"input {spec.name!r} has {len(values)} elements; shape {shape_text(shape)} needs {count}",
            spec.name,
        )
    kind = spec.dtype
    if kind is DataType.BYTES:
        array = np.empty(count, dtype=object)
        array[:] = [value.encode() if isinstance(value, str) else value for value in values]
        return array.reshape(shape)
    try:
        return _exact(values, kind, spec).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise bad_contents(f"input {spec.name!r} cannot hold these elements: {error}", spec.name) from error


def _exact(values: Sequence[Any], kind: DataType, spec: TensorSpec) -> Array:
    """Converts elements where that loses nothing but digits. Raises InvalidArgument, OverflowError."""
    dtype = kind.numpy
    if not values:
        return np.empty(0, dtype)
    if kind in (DataType.FP16, DataType.FP32, DataType.FP64, DataType.BF16):
        allowed: tuple[type, ...] = (float, int)
    else:
        allowed = (bool,) if kind is DataType.BOOL else (int,)
    for value in values:
        if type(value) not in allowed:
            raise bad_contents(
                f"input {spec.name!r} of type {kind.value} cannot hold {value!r:.40}", spec.name
            )
    return np.array(values, dtype=dtype)


def to_text(array: Array, name: str) -> list[str]:
    """Elements of BYTES as texts, for JSON. Raises InvalidArgument that tells the way out if they are no
    UTF-8.
    """
    try:
        return [item.decode("utf-8") for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument(
            f"output {name!r} has bytes that are no UTF-8 and so no JSON; ask for it as binary data",
            reason="OUTPUT_NOT_TEXT",
        ) from error
