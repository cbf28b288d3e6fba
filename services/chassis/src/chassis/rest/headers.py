"""HTTP headers and gRPC metadata: every rule between the two, in this one place.

In: ``Authorization``, ``X-Api-Key``, ``traceparent``, ``tracestate``, ``baggage`` and ``X-Request-Id`` keep
their names; ``Grpc-Metadata-Foo: v`` becomes ``foo: v``; a name that ends in ``-bin`` is base64 over HTTP and
bytes as metadata; ``Grpc-Timeout`` is the deadline and no metadata; everything else stays outside.

Out: the server's initial metadata becomes ``Grpc-Metadata-Foo``, its trailing metadata ``Grpc-Trailer-Foo``,
except ``x-request-id``, which keeps its name. What gRPC itself owns (``grpc-*``, ``content-type`` …) is never
passed on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from chassis import errors
from chassis.errors import Code

Headers = Iterable[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str | bytes], ...]

FORWARDED = frozenset(("authorization", "x-api-key", "traceparent", "tracestate", "baggage", "x-request-id"))
_KEPT_OUTBOUND = frozenset(("x-request-id",))
_IN_PREFIX = "grpc-metadata-"
_KEY = re.compile(r"[0-9a-z_.\-]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_RESERVED = frozenset(
    (
        "content-type",
        "content-length",
        "te",
        "host",
        "connection",
        "transfer-encoding",
        "user-agent",
        "trailer",
    )
)
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def to_metadata(headers: Headers, extra: frozenset[str] = frozenset()) -> Metadata:
    """The metadata of a call. ``extra`` names further headers, lower case, that keep their names.

    Raises `errors.InvalidArgument` for what gRPC cannot carry.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name.startswith(_IN_PREFIX):
            key = name.removeprefix(_IN_PREFIX)
            if not _KEY.fullmatch(key) or key.startswith("grpc-") or key in _RESERVED:
                raise _bad_header(name, f"{key!r} cannot be set as metadata")
        elif name in FORWARDED or name in extra:
            key = name
        else:
            continue
        metadata.append((key, _inbound(name, key, raw_value)))
    return tuple(metadata)


def timeout(value: str | None) -> float | None:
    """Seconds of a ``Grpc-Timeout`` header (at most 8 digits and a unit: H M S m u n).

    Raises InvalidArgument.
    """
    if value is None:
        return None
    found = _TIMEOUT.fullmatch(value.strip())
    if found is None:
        raise _bad_header(
            "grpc-timeout",
            f"{value!r} is not a timeout; write up to 8 digits and a unit of H M S m u n, such as 500m",
        )
    return int(found[1]) * _UNITS[found[2]]


def from_metadata(
    initial: Iterable[tuple[str, str | bytes]], trailing: Iterable[tuple[str, str | bytes]]
) -> Headers:
    """The HTTP headers that carry a server's metadata."""
    headers: list[tuple[bytes, bytes]] = []
    for prefix, metadata in ((b"grpc-metadata-", initial), (b"grpc-trailer-", trailing)):
        for key, value in metadata:
            key = key.lower()
            if key.startswith("grpc-") or key in _RESERVED or not _KEY.fullmatch(key):
                continue
            name = key.encode() if key in _KEPT_OUTBOUND else prefix + key.encode()
            text = _outbound(key, value)
            if text is not None:
                headers.append((name, text))
    return headers


def of_failure(status: status_pb2.Status) -> Headers:
    """Headers that a failure implies: Retry-After from RetryInfo, WWW-Authenticate for 401."""
    headers: list[tuple[bytes, bytes]] = []
    if status.code == Code.UNAUTHENTICATED.value:
        headers.append((b"www-authenticate", b"Bearer"))
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay: duration_pb2.Duration = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            seconds = delay.seconds + (delay.nanos > 0)
            headers.append((b"retry-after", str(max(0, seconds)).encode()))
    return headers


def find(headers: Headers, name: bytes) -> str | None:
    """The value of a header, several joined by commas; ``name`` in lower case."""
    found = [value for key, value in headers if key.lower() == name]
    return b", ".join(found).decode("latin-1") if found else None


def _inbound(name: str, key: str, raw_value: bytes) -> str | bytes:
    text = raw_value.decode("latin-1").strip()
    if key.endswith("-bin"):
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except binascii.Error as error:
            raise _bad_header(name, "a value whose name ends in -bin is base64") from error
    if not _VALUE.fullmatch(text):
        raise _bad_header(
            name, "metadata holds printable ASCII only; use a name that ends in -bin and base64"
        )
    return text


def _outbound(key: str, value: str | bytes) -> bytes | None:
    if key.endswith("-bin"):
        return base64.b64encode(value.encode() if isinstance(value, str) else value)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text.encode() if _VALUE.fullmatch(text) else None


def _bad_header(name: str, problem: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"header {name!r}: {problem}", reason="INVALID_HEADER", metadata={"header": name}
    )
