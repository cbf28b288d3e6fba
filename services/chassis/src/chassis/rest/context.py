"""What a servicer sees of a call that came over HTTP: a `grpc.aio.ServicerContext` with no gRPC server behind
it.

Behaves as grpcio 1.85's own (`_cython/_cygrpc/aio/server.pyx.pxi`): an abort ends the call whatever is caught
on the way out, a code set without an abort counts when the handler returns, trailing metadata given to an
abort replaces what was set before.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio
from google.rpc import status_pb2

from chassis.rest.port import Call, RpcFailure
from chassis.rest.remote import status_of


class Metadatum(NamedTuple):
    """One pair of metadata, with the names that grpc's own pairs have."""

    key: str
    value: str | bytes


class Context(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call.

    ``requests`` is set for client-streaming calls, ``writer`` for server-streaming ones.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.requests: AsyncIterator[Any] | None = None
        self.writer: Callable[[Any], Awaitable[None]] | None = None
        self._metadata = tuple(Metadatum(key, value) for key, value in call.metadata)
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: tuple[Any, ...] = ()
        self._aborted = False
        self._cancelled = False
        self._done = False
        self._callbacks: list[Callable[[Any], None]] = []

    # The servicer's side.

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`."""
        if self.requests is None:
            raise grpc.aio.UsageError("only a client-streaming method may read")
        return await anext(self.requests, grpc.aio.EOF)

    async def write(self, message: Any) -> None:
        """Send one response of a streaming method."""
        if self.writer is None:
            raise grpc.aio.UsageError("only a server-streaming method may write")
        await self.writer(message)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send initial metadata now, ahead of the first response."""
        self.note_initial(initial_metadata)

    def note_initial(self, initial_metadata: Any) -> None:
        """The same for synchronous handlers."""
        if self.call.started.is_set():
            raise grpc.aio.UsageError("initial metadata was sent already")
        self.call.initial.extend((key, value) for key, value in initial_metadata or ())
        self.call.started.set()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with an error; always raises."""
        self.note_abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with the error of a `grpc.Status`; always raises."""
        self.note_abort(status.code, status.details, status.trailing_metadata)

    def note_abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """The same for synchronous handlers."""
        if self._aborted:
            raise grpc.aio.UsageError("abort was called already")
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, "the handler aborted the call with code OK"
        self._aborted = True
        self._code = code
        self._details = details or ""
        if trailing_metadata:
            self._trailing = tuple(trailing_metadata)
        raise grpc.aio.AbortError("Locally aborted.")

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Metadata to send at the end."""
        self._trailing = tuple(trailing_metadata or ())

    def trailing_metadata(self) -> Any:
        """What `set_trailing_metadata` was given."""
        return self._trailing

    def invocation_metadata(self) -> Any:
        """The metadata that the HTTP headers gave."""
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """The code to end with when the handler returns."""
        self._code = code if isinstance(code, grpc.StatusCode) else _code_of(code)

    def set_details(self, details: str) -> None:
        """The text to end with when the handler returns."""
        self._details = details

    def code(self) -> Any:
        """The code set so far, as gRPC's number (0 when none was)."""
        return self._code.value[0] if self._code is not None else 0

    def details(self) -> str:
        """The text set so far."""
        return self._details

    def set_compression(self, compression: Any) -> None:
        """No meaning here: HTTP servers compress, or do not, by their own rules."""

    def disable_next_message_compression(self) -> None:
        """No meaning here."""

    def peer(self) -> str:
        """The HTTP client, as gRPC writes addresses: ``ipv4:127.0.0.1:5000``."""
        return self.call.peer

    def peer_identities(self) -> Sequence[bytes] | None:
        """None: the HTTP server verifies no client certificates for us."""
        return None

    def peer_identity_key(self) -> str | None:
        """None, as `peer_identities`."""
        return None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Empty, as `peer_identities`."""
        return {}

    def time_remaining(self) -> float | None:  # type: ignore[override]
        """Seconds to the deadline, never below zero; None when there is none."""
        return None if self.call.deadline is None else max(0.0, self.call.deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back once when the call ends."""
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        """Whether the client went away or the deadline passed."""
        return self._cancelled

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done

    # The backend's side.

    @property
    def aborted(self) -> bool:
        """Whether an abort ended the call."""
        return self._aborted

    def note_cancelled(self) -> None:
        """The call is being cancelled."""
        self._cancelled = True

    def finish(self) -> None:
        """The call has ended: hand over trailing metadata and call back."""
        if self._done:
            return
        self._done = True
        self.call.trailing.extend((key, value) for key, value in self._trailing)
        for callback in self._callbacks:
            callback(self)

    def raise_for_code(self) -> None:
        """Raise `RpcFailure` when the handler ended with a code other than OK."""
        if self._code is not None and self._code is not grpc.StatusCode.OK:
            raise RpcFailure(self.failure_status())

    def failure_status(self) -> status_pb2.Status:
        """The Status of the code, text and trailing metadata set."""
        pairs = [(str(key), value) for key, value in self._trailing]
        return status_of(self._code or grpc.StatusCode.UNKNOWN, self._details, pairs)


class SyncContext(grpc.ServicerContext):
    """The same call for a handler that is a plain function and so runs in a thread."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with an error; always raises."""
        self._context.note_abort(code, details)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with the error of a `grpc.Status`; always raises."""
        self._context.note_abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send initial metadata with the first response."""
        self._context.call.initial.extend((key, value) for key, value in initial_metadata or ())

    def is_active(self) -> bool:
        """Whether an answer is still wanted."""
        return not (self._context.done() or self._context.cancelled())

    def cancel(self) -> bool:
        """Not for servers."""
        raise NotImplementedError("a servicer does not cancel its own call; it aborts")

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back once when the call ends; False when it has."""
        if self._context.done():
            return False
        self._context.add_done_callback(lambda _: callback())
        return True

    def invocation_metadata(self) -> Any:
        """As `Context.invocation_metadata`."""
        return self._context.invocation_metadata()

    def peer(self) -> Any:
        """As `Context.peer`."""
        return self._context.peer()

    def peer_identities(self) -> Any:
        """As `Context.peer_identities`."""
        return self._context.peer_identities()

    def peer_identity_key(self) -> Any:
        """As `Context.peer_identity_key`."""
        return self._context.peer_identity_key()

    def auth_context(self) -> Any:
        """As `Context.auth_context`."""
        return self._context.auth_context()

    def trailing_metadata(self) -> Any:
        """As `Context.trailing_metadata`."""
        return self._context.trailing_metadata()

    def code(self) -> Any:
        """As `Context.code`."""
        return self._context.code()

    def details(self) -> Any:
        """As `Context.details`."""
        return self._context.details()

    def time_remaining(self) -> Any:
        """As `Context.time_remaining`."""
        return self._context.time_remaining()

    def disable_next_message_compression(self) -> None:
        """As `Context.disable_next_message_compression`."""
        self._context.disable_next_message_compression()

    def set_compression(self, compression: Any) -> None:
        """As `Context.set_compression`."""
        self._context.set_compression(compression)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """As `Context.set_trailing_metadata`."""
        self._context.set_trailing_metadata(trailing_metadata)

    def set_code(self, code: Any) -> None:
        """As `Context.set_code`."""
        self._context.set_code(code)

    def set_details(self, details: Any) -> None:
        """As `Context.set_details`."""
        self._context.set_details(details)


def _code_of(number: Any) -> grpc.StatusCode:
    return next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN)
