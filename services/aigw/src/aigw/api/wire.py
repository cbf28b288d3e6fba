"""Reads the two fields that calls are routed by from the raw bytes of an Open Inference Protocol request.

`ModelInferRequest`, `ModelReadyRequest`, `ModelMetadataRequest`, `ModelConfigRequest` and
`ModelStatisticsRequest` all have the model's name as field 1 and its version as field 2. The payload is
walked over, never decoded or copied: tensors are skipped by their length. The encoding is that of
https://protobuf.dev/programming-guides/encoding/; as there, the last one of a repeated field wins, unknown
fields are skipped, and a known field in another wire type counts as unknown.
"""

from chassis import errors

_NAME_TAG = 1 << 3 | 2
_VERSION_TAG = 2 << 3 | 2
_MAX_DEPTH = 100
_MAX_NAME_BYTES = 256  # the longest name of a model is 127, of a version 63
_MAX_FIELDS = 16_384
"""Top-level fields, and those in groups. A request has one per tensor and parameter; walking over millions of
tiny ones would hold up every other call."""


def read_names(payload: bytes) -> tuple[str, str]:
    """Name and version of the model asked for; empty if not given. Raises InvalidArgument for malformed
    bytes.
    """
    name = version = b""
    groups: list[int] | None = None  # how many fields all groups may still have
    position, end, left = 0, len(payload), _MAX_FIELDS
    try:
        while position < end:
            left -= 1
            if left < 0:
                raise _too_many()
            tag = payload[position]
            position += 1
            if tag >= 0x80:
                tag, position = _varint(payload, position - 1)
            if tag & 7 == 2:
                length = payload[position]
                position += 1
                if length >= 0x80:
                    length, position = _varint(payload, position - 1)
                stop = position + length
                if stop > end:
                    raise _malformed(f"field {tag >> 3} ends {stop - end} bytes after the message")
                if tag == _NAME_TAG:
                    name = payload[position:stop]
                elif tag == _VERSION_TAG:
                    version = payload[position:stop]
                elif tag < 8:
                    raise _malformed("field number 0")
                position = stop
            else:
                if tag & 7 == 3 and groups is None:
                    groups = [_MAX_FIELDS]
                position = _skip(payload, tag, position, groups)
                if position > end:
                    raise _malformed(f"field {tag >> 3} ends {position - end} bytes after the message")
    except IndexError:
        raise _malformed("the message ends within a field") from None
    if len(name) > _MAX_NAME_BYTES or len(version) > _MAX_NAME_BYTES:
        raise _malformed(f"a name of {max(len(name), len(version))} bytes is longer than {_MAX_NAME_BYTES}")
    return _text(name, 1), _text(version, 2)


def _skip(payload: bytes, tag: int, position: int, groups: list[int] | None, depth: int = 0) -> int:
    """Where the field that begins after its tag ends. IndexError if the payload ends before it."""
    wire_type, number = tag & 7, tag >> 3
    if number == 0:
        raise _malformed("field number 0")
    if wire_type == 0:
        return _varint(payload, position)[1]
    if wire_type == 1:
        return position + 8
    if wire_type == 2:
        length, position = _varint(payload, position)
        return position + length
    if wire_type == 5:
        return position + 4
    if wire_type == 3 and groups is not None:
        return _skip_group(payload, number, position, groups, depth)
    raise _malformed(f"field {number} has the impossible wire type {wire_type}")


def _skip_group(payload: bytes, number: int, position: int, groups: list[int], depth: int) -> int:
    if depth >= _MAX_DEPTH:
        raise _malformed(f"groups are nested more than {_MAX_DEPTH} deep")
    while True:
        groups[0] -= 1
        if groups[0] < 0:
            raise _too_many()
        tag, position = _varint(payload, position)
        if tag & 7 == 4:
            if tag >> 3 != number:
                raise _malformed(f"group {number} is ended as group {tag >> 3}")
            return position
        position = _skip(payload, tag, position, groups, depth + 1)


def _varint(payload: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = payload[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift >= 70:
            raise _malformed("a number is longer than 10 bytes")


def _text(value: bytes, number: int) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed(f"field {number} is not UTF-8") from None


def _too_many() -> errors.InvalidArgument:
    return _malformed(f"it has more than {_MAX_FIELDS} fields")


def _malformed(what: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"the request is not a valid message of the Open Inference Protocol: {what}",
        reason="PAYLOAD_MALFORMED",
    )
