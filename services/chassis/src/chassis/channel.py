"""Channels to other services for control-plane calls: TLS, a bearer token, the trace context.

The data path has its own upstream (`chassis.transport.grpcio`); interceptors cost too much there.
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from chassis import errors
from chassis.settings import ChannelSettings
from chassis.telemetry import Telemetry, propagation
from chassis.tls import channel_credentials
from chassis.transport.grpcio_upstream import channel_options

_RELOAD_INTERVAL = 1.0


@contextlib.asynccontextmanager
async def open_channel(
    settings: ChannelSettings, telemetry: Telemetry | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `settings.address`; nothing is sent before the first call.

    Calls fail with `grpc.aio.AioRpcError`; `chassis.status.from_rpc_error` turns it into ours.
    """
    if not settings.address:
        raise errors.InvalidArgument(
            "the address of the service to call is not set", reason="ADDRESS_MISSING"
        )
    interceptor = _CallInterceptor(_token_source(settings), telemetry, settings.address)
    options, interceptors = channel_options(settings), interceptor.all()
    if settings.secure:
        channel = grpc.aio.secure_channel(
            settings.address, channel_credentials(settings), options, interceptors=interceptors
        )
    else:
        channel = grpc.aio.insecure_channel(settings.address, options, interceptors=interceptors)
    try:
        yield channel
    finally:
        await channel.close()


class FileToken:
    """The bearer token in a file's first line, read again when the file changes."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._looked = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """The token as the file says now, give or take a second."""
        now = self._monotonic()
        if now - self._looked >= _RELOAD_INTERVAL:
            self._looked = now
            self._read()
        return self._token

    def _read(self) -> None:
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._token = self._path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is None:
                raise errors.InvalidArgument(
                    f"the token file {self._path} cannot be read: {error}", reason="TOKEN_UNREADABLE"
                ) from error


def _token_source(settings: ChannelSettings) -> Callable[[], str] | None:
    if settings.token_file is not None:
        return FileToken(settings.token_file)
    if settings.token is not None:
        return settings.token.get_secret_value
    return None


class _CallInterceptor:
    """Adds token and trace context to each call, and a client span around it when the trace is recorded."""

    def __init__(self, token: Callable[[], str] | None, telemetry: Telemetry | None, address: str) -> None:
        self._token = token
        self._telemetry = telemetry
        self._address = address

    def all(self) -> list[grpc.aio.ClientInterceptor]:
        """grpc.aio wants one object for each kind of call."""
        return [_UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]

    async def call(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        """Makes the call."""
        span = self._start_span(details)
        call = await continuation(self._extended(details, span), request)
        if span is not None:
            recorded = span
            call.add_done_callback(lambda done: _end(recorded, done))
        return call

    def _start_span(self, details: grpc.aio.ClientCallDetails) -> Span | None:
        telemetry = self._telemetry
        if telemetry is None or not telemetry.tracing:
            return None
        method = _text(details.method).removeprefix("/")
        span = telemetry.tracer.start_span(method, kind=SpanKind.CLIENT)
        span.set_attribute("rpc.system.name", "grpc")
        span.set_attribute("rpc.method", method)
        span.set_attribute("server.address", self._address)
        return span

    def _extended(self, details: grpc.aio.ClientCallDetails, span: Span | None) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._token is not None:
            metadata["authorization"] = f"Bearer {self._token()}"
        header = propagation.traceparent_of(span or trace.get_current_span())
        if header is not None:
            metadata[propagation.TRACEPARENT] = header
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, shared: _CallInterceptor) -> None:
        self._shared = shared

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """One message each way."""
        return await self._shared.call(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, shared: _CallInterceptor) -> None:
        self._shared = shared

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """A stream back."""
        return await self._shared.call(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, shared: _CallInterceptor) -> None:
        self._shared = shared

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """A stream out."""
        return await self._shared.call(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, shared: _CallInterceptor) -> None:
        self._shared = shared

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """Streams both ways."""
        return await self._shared.call(continuation, client_call_details, request_iterator)


def _end(span: Span, call: Any) -> None:
    code = _finished(call.code())
    if isinstance(code, grpc.StatusCode):
        span.set_attribute("rpc.response.status_code", code.name)
        if code is not grpc.StatusCode.OK:
            span.set_status(StatusCode.ERROR)
    span.end()


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that need not wait: a done callback cannot await the code of a call that is
    done.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
