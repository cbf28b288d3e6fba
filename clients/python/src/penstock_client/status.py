"""From what a server sent (a gRPC status or a REST body, both `google.rpc.Status`) to our errors."""

from __future__ import annotations

import json

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from penstock_client.errors import Code, FieldViolation, PenstockError, error_class

_DETAILS_KEY = "grpc-status-details-bin"

# google.rpc.Code to HTTP, read backwards for bodies that are not ours (a proxy in between answering in HTML).
_HTTP_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def from_status(status: status_pb2.Status, *, origin: str) -> PenstockError:
    """The error that a `google.rpc.Status` tells of, with its standard details read."""
    reason, metadata, violations, retry_after = "", {}, [], None
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations += [FieldViolation(v.field, v.description, v.reason) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error_class(status.code)(
        status.message,
        reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after=retry_after,
        origin=origin,
    )


def from_rpc_error(error: grpc.aio.AioRpcError, *, origin: str) -> PenstockError:
    """The error behind a failed gRPC call."""
    number = int(error.code().value[0])
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status()
            status.ParseFromString(value)
            if status.code == number:
                return from_status(status, origin=origin)
    return error_class(number)(_readable(error, origin), reason=_local_reason(error), origin=origin)


def from_http(http_status: int, body: bytes, *, origin: str) -> PenstockError:
    """The error behind a REST answer that is not 2xx."""
    status = status_pb2.Status()
    try:
        document = json.loads(body)
        # The inference faces say {"error": "..."} as Triton and KServe do, ours with the Status beside it.
        if isinstance(document, dict) and isinstance(document.get("status"), dict):
            document = document["status"]
        elif isinstance(document, dict) and isinstance(document.get("error"), str) and "code" not in document:
            document = {"code": int(_http_code(http_status)), "message": document["error"]}
        json_format.ParseDict(document, status, ignore_unknown_fields=True)
    except (ValueError, json_format.ParseError):
        text = body[:200].decode(errors="replace").strip()
        status = status_pb2.Status(code=int(_http_code(http_status)), message=f"HTTP {http_status}: {text}")
    if not status.code:
        status.code = int(_http_code(http_status))
    return from_status(status, origin=origin)


def _http_code(http_status: int) -> Code:
    return _HTTP_CODES.get(http_status, Code.INVALID_ARGUMENT if http_status < 500 else Code.UNKNOWN)


def _readable(error: grpc.aio.AioRpcError, origin: str) -> str:
    """gRPC's own failures name its inner parts; say what it means for the person instead."""
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and (
        "failed to connect" in details or "Connection refused" in details or "DNS" in details
    ):
        cause = details.rsplit(": ", 1)[-1].strip() or details
        return f"cannot reach {origin}: {cause}"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {origin} within the time allowed"
    return details or f"{origin} failed without saying why"


def _local_reason(error: grpc.aio.AioRpcError) -> str:
    return "SERVER_UNREACHABLE" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
