"""The few parts of the protobuf wire format that the data path reads and writes itself, to copy tensors less.

protobuf copies each `bytes` field when it parses, when it is set and when it serialises. For large tensors
that is most of the work of a call, so raw contents are taken from the request, and put into the answer, by
their place.
"""

from collections.abc import Sequence

_RAW_INPUT_TAG = 7 << 3 | 2
Buffer = bytes | memoryview


class WireError(ValueError):
    """The bytes are no protobuf message."""


def varint(value: int) -> bytes:
    """A number as protobuf writes lengths."""
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes([value]) for value in range(0x80)]


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field below number 16."""
    return b"%c%b%b" % (number << 3 | 2, varint(len(data)), data)


def split_raw_inputs(payload: bytes) -> tuple[bytes, Sequence[memoryview]]:
    """A ModelInferRequest without its `raw_input_contents`, and these as views of the payload.

    Raises WireError. Unknown fields stay with the message.
    """
    view = memoryview(payload)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    at, end, keep_from = 0, len(payload), 0
    while at < end:
        start = at
        tag, at = _read_varint(payload, at)
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(payload, at)
            stop = at + size
        elif kind == 0:
            _, stop = _read_varint(payload, at)
        elif kind == 5:
            stop = at + 4
        elif kind == 1:
            stop = at + 8
        else:
            raise WireError("a field has an unknown wire type")
        if stop > end:
            raise WireError("the message ends too early")
        if tag == _RAW_INPUT_TAG:
            kept.append(view[keep_from:start])
            raw.append(view[at:stop])
            keep_from = stop
        at = stop
    kept.append(view[keep_from:end])
    return b"".join(kept), raw


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise WireError("a number is too long")
    except IndexError:
        raise WireError("the message ends too early") from None
