"""`chassis.errors` on the wire: `google.rpc.Status` with its details, both directions.

Trailing metadata of a gRPC answer is bounded (8 KiB by default on most peers), and a Status that is too large
would replace the real error by a transport one, so what is sent is trimmed to fit.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from chassis import errors
from chassis.errors import Code, Error, FieldViolation

DOMAIN = "penstock.dev"
DETAILS_KEY = "grpc-status-details-bin"
MAX_DETAILS_BYTES = 4096
_MAX_MESSAGE_CHARACTERS = 1500

GRPC_CODES: Mapping[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}
_CODES: Mapping[grpc.StatusCode, Code] = {status: code for code, status in GRPC_CODES.items()}


def to_status(error: Error) -> status_pb2.Status:
    """The Status of an error; an upstream's own Status is taken over as it is."""
    if error.details is not None:
        try:
            return status_pb2.Status.FromString(error.details)
        except DecodeError:
            pass  # what an upstream sent is not a Status: describe the error ourselves
    status = status_pb2.Status(code=error.code.value, message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    )
    if error.violations:
        status.details.add().Pack(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=v.field, description=v.description, reason=v.reason
                    )
                    for v in error.violations
                ]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(max(0, int(error.retry_after * 1e9)))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: status_pb2.Status) -> Error:
    """The error of a Status. Code OK becomes Internal, as it came where a failure was said."""
    code = Code.from_number(status.code)
    if code is Code.OK:
        return errors.Internal(status.message or "a failure came with code OK", reason="STATUS_OK_AS_ERROR")
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        try:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
            elif detail.Is(bad_request.DESCRIPTOR):
                detail.Unpack(bad_request)
            elif detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
                retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        except DecodeError:
            continue  # one broken detail does not hide the others
    return errors.error_class(code)(
        status.message,
        reason=info.reason or code.name,
        metadata=info.metadata,
        violations=[FieldViolation(v.field, v.description, v.reason) for v in bad_request.field_violations],
        retry_after=retry_after,
        details=status.SerializeToString(),
    )


def from_rpc_error(error: grpc.aio.AioRpcError) -> Error:
    """The error of a failed gRPC call, chained by the caller (`raise from_rpc_error(e) from e`)."""
    trailing = error.trailing_metadata()
    details = next((value for key, value in trailing or () if key == DETAILS_KEY), None)
    return from_wire(
        _CODES[error.code()], error.details() or "", details if isinstance(details, bytes) else None
    )


def from_wire(code: Code, message: str, details: bytes | None) -> Error:
    """The error of a code and a text, and of the Status bytes when there are any and they agree with the
    code.
    """
    if details is not None:
        try:
            status = status_pb2.Status.FromString(details)
        except DecodeError:
            status = status_pb2.Status()
        if status.code == code.value:
            error = from_status(status)
            error.details = details
            return error
    if code is Code.OK:
        return errors.Internal(message or "a failure came with code OK", reason="STATUS_OK_AS_ERROR")
    return errors.error_class(code)(message or code.name, reason=code.name)


def wire_details(error: Error) -> bytes:
    """The Status bytes to send in trailing metadata, trimmed to `MAX_DETAILS_BYTES`."""
    if error.details is not None:
        return error.details
    status = to_status(error)
    if status.ByteSize() > MAX_DETAILS_BYTES:
        status = _trimmed(error)
    details: bytes = status.SerializeToString()
    return details


def wire_message(error: Error) -> str:
    """The text to send; a very long one is cut, because it shares the trailer's limit."""
    text = error.message
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[: _MAX_MESSAGE_CHARACTERS - 1] + "…"


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: Error) -> NoReturn:
    """Ends a call with an error, keeping trailing metadata already set on the context."""
    kept = tuple(item for item in context.trailing_metadata() or () if item[0] != DETAILS_KEY)
    trailing = (*kept, *error.trailing, (DETAILS_KEY, wire_details(error)))
    await context.abort(GRPC_CODES[error.code], wire_message(error), trailing)
    raise AssertionError("context.abort returned")


def unknown(error: BaseException) -> Error:
    """What a caller is told about an exception nobody expected; details belong in the log only."""
    return errors.Internal("internal error", reason="INTERNAL")


def _trimmed(error: Error) -> status_pb2.Status:
    """The error with as many violations as fit, and a last one that says how many were left out."""
    short = errors.error_class(error.code)(
        wire_message(error),
        reason=error.reason,
        metadata=_small(error.metadata),
        retry_after=error.retry_after,
    )
    kept: list[FieldViolation] = []
    for violation in error.violations:
        candidate = FieldViolation(violation.field[:200], violation.description[:500], violation.reason)
        rest = len(error.violations) - len(kept) - 1
        short.violations = (*kept, candidate, FieldViolation("", f"and {rest} more violations"))
        if to_status(short).ByteSize() > MAX_DETAILS_BYTES:
            break
        kept.append(candidate)
    rest = len(error.violations) - len(kept)
    short.violations = (*kept, FieldViolation("", f"and {rest} more violations")) if rest else tuple(kept)
    return to_status(short)


def _small(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:200] for key, value in list(metadata.items())[:8]}


def code_name(number: int) -> str:
    """The canonical name of a wire code, for logs and metrics."""
    return str(code_pb2.Code.Name(number)) if 0 <= number <= 16 else "UNKNOWN"
