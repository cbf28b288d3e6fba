"""HTTP calls to a replica, on the terms of the chassis's gRPC transport port: opaque bytes, deadline,
cancellation.
"""

from typing import Protocol

from chassis.errors import Code
from chassis.transport.port import Metadata

_STATUS_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    415: Code.INVALID_ARGUMENT,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def code_of_status(status: int) -> Code:
    """The canonical code of an HTTP status, the way back of google.rpc.Code's table."""
    if status < 400:
        return Code.OK
    return _STATUS_CODES.get(status, Code.INVALID_ARGUMENT if status < 500 else Code.UNKNOWN)


class HttpReply:
    """An HTTP answer, taken as it is. `headers` are the ones to pass on, in order."""

    __slots__ = ("headers", "payload", "status")

    def __init__(self, status: int, headers: tuple[tuple[bytes, bytes], ...], payload: bytes) -> None:
        self.status = status
        self.headers = headers
        self.payload = payload

    @property
    def code(self) -> Code:
        """The canonical code that the status stands for."""
        return code_of_status(self.status)


class HttpUpstream(Protocol):
    """HTTP calls to one address, on the terms of `chassis.transport.port.Upstream`."""

    async def send(
        self,
        method: str,
        target: str,
        payload: bytes,
        *,
        headers: Metadata = (),
        deadline: float | None = None,
    ) -> HttpReply:
        """Makes one call. `target` is the path and query as they go on the wire.

        Any status is an answer. Raises Unavailable (reason CONNECTION_FAILED) if there is none,
        DeadlineExceeded if there is none in time.
        """
        ...

    async def close(self) -> None:
        """Closes the connections; calls in flight are cancelled."""
        ...
