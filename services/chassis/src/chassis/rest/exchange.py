"""The answering side of one HTTP exchange: whole answers, streamed ones, and failures in either."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from google.rpc import status_pb2

from chassis import errors, status
from chassis.errors import Code
from chassis.rest import headers, media, problem
from chassis.rest.encode import Encoder
from chassis.rest.outbound import Framing, RawFraming
from chassis.rest.port import Call, RpcFailure

_log = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Headers = Iterable[tuple[bytes, bytes]]


class Exchange:
    """The answering side of one request."""

    def __init__(self, encoder: Encoder, send: Send, *, head_only: bool) -> None:
        self._encoder = encoder
        self._send = send
        self._head_only = head_only
        self._framing: Framing | None = None
        self.call: Call | None = None

    async def send(self, http_status: int, content_type: str, body: bytes, extra: _Headers = ()) -> None:
        """A whole answer."""
        length = str(len(body)).encode()
        await self._head(http_status, content_type, [(b"content-length", length), *extra])
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else body})

    async def start(self, framing: Framing, extra: _Headers) -> None:
        """Begin a streamed answer."""
        await self._head(200, framing.content_type, [(b"cache-control", b"no-cache"), *extra])
        self._framing = framing

    async def chunk(self, body: bytes) -> None:
        """A piece of a streamed answer."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a streamed answer."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: Exception) -> None:
        """Answer with the Status of an exception, inside the stream when one has begun."""
        answer = _status_of(error)
        body = self._encoder.status(answer)
        if self._framing is None:
            if isinstance(error, problem.HttpFailure):
                http_status, extra = error.http_status, error.headers
            else:
                http_status, extra = Code.from_number(answer.code).http_status, ()
            metadata = headers.from_metadata(self.call.initial, self.call.trailing) if self.call else ()
            await self.send(http_status, media.JSON, body, [*extra, *headers.of_failure(answer), *metadata])
        elif isinstance(self._framing, RawFraming):
            raise ConnectionAbortedError(f"the stream of bytes broke off: {answer.message}") from error
        else:
            await self.chunk(self._framing.failure(body))
            await self.end()

    async def _head(self, http_status: int, content_type: str, extra: _Headers) -> None:
        kind = content_type.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
        await self._send(
            {
                "type": "http.response.start",
                "status": http_status,
                "headers": [(b"content-type", kind), *extra],
            }
        )


def _status_of(error: Exception) -> status_pb2.Status:
    if isinstance(error, RpcFailure):
        return error.status
    if isinstance(error, problem.HttpFailure):
        return status.to_status(error.error)
    if isinstance(error, errors.Error):
        return status.to_status(error)
    _log.exception("REST transcoding failed", exc_info=error)
    return status.to_status(status.unknown(error))
