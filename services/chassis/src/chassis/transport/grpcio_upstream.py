"""Calls upstreams over grpc.aio, bytes in and bytes out.

One channel per address; multicallables are made once per method. The caller's remaining time travels as
grpc-timeout, cancelling the awaiting task (or closing the stream) resets the stream upstream, and the
upstream's Status details come back as the bytes they were.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from chassis import errors, status
from chassis.errors import Code, Error
from chassis.settings import ChannelSettings
from chassis.telemetry import Telemetry, propagation
from chassis.tls import channel_credentials
from chassis.transport.metadata import forwardable, is_forwardable
from chassis.transport.port import Metadata, Reply

_NOTHING: Metadata = ()
# What the server says about itself at the end of an answer and is ours to say, or not.
_OWN_TRAILING = frozenset({status.DETAILS_KEY, "grpc-status", "grpc-message"})


def channel_options(settings: ChannelSettings) -> list[tuple[str, Any]]:
    """grpc.aio channel arguments of the settings."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", 32 * 1024),
        ("grpc.absolute_max_metadata_size", 64 * 1024),
        ("grpc.keepalive_time_ms", int(settings.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A replica that restarts is back within seconds: do not wait for it for minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Replicas are neighbours; a proxy from the environment is for the outside world.
        ("grpc.enable_http_proxy", 0),
        # Each upstream owns its connection, so that closing one really closes it.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if settings.server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    return options


class GrpcConnector:
    """Opens upstreams with common channel settings. Certificates are read when a connection is made."""

    def __init__(self, settings: ChannelSettings | None = None, telemetry: Telemetry | None = None) -> None:
        self._settings = settings or ChannelSettings()
        self._telemetry = telemetry

    def connect(self, address: str) -> "GrpcUpstream":
        """An upstream for a `host:port`; nothing is sent before its first call."""
        options = channel_options(self._settings)
        if self._settings.secure:
            channel = grpc.aio.secure_channel(address, channel_credentials(self._settings), options)
        else:
            channel = grpc.aio.insecure_channel(address, options)
        return GrpcUpstream(channel, address, self._telemetry)


class GrpcUpstream:
    """One grpc.aio channel as an `Upstream`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, telemetry: Telemetry | None = None) -> None:
        self._channel = channel
        self._address = address
        self._telemetry = telemetry
        self._tracing = telemetry is not None and telemetry.tracing
        self._unary: dict[str, Callable[..., Any]] = {}

    async def unary(
        self, method: str, payload: bytes, *, metadata: Metadata = (), deadline: float | None = None
    ) -> Reply:
        """Makes one call. Raises `chassis.errors.Error`."""
        make = self._unary.get(method)
        if make is None:
            make = self._unary[method] = self._channel.unary_unary(method)
        timeout = None
        if deadline is not None:
            timeout = deadline - time.monotonic()
            if timeout <= 0:
                raise self._too_late(method)
        if self._tracing:
            return await self._traced_unary(make, method, payload, metadata, timeout)
        # With tracing off no span is current, so there is nothing to look for: the caller's context goes on.
        sent = _outgoing(metadata) if self._telemetry is None else forwardable(metadata)
        return await self._call(make, payload, sent, timeout)

    async def _call(
        self, make: Callable[..., Any], payload: bytes, metadata: Metadata, timeout: float | None
    ) -> Reply:
        call = None
        try:
            call = make(payload, timeout=timeout, metadata=metadata)
            answer = await call
            trailing = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        except grpc.aio.UsageError as error:
            raise self._closed() from error
        return Reply(answer, _trailing(trailing) if trailing else _NOTHING)

    async def _traced_unary(
        self, make: Callable[..., Any], method: str, payload: bytes, metadata: Metadata, timeout: float | None
    ) -> Reply:
        span = self._start_span(method)
        try:
            return await self._call(make, payload, _outgoing(metadata, span), timeout)
        except Error as error:
            _failed(span, error)
            raise
        finally:
            if span is not None:
                span.end()

    async def stream(
        self,
        method: str,
        payloads: AsyncIterator[bytes],
        *,
        metadata: Metadata = (),
        deadline: float | None = None,
    ) -> AsyncIterator[bytes]:
        """Makes one streaming call. Raises `chassis.errors.Error` while iterated."""
        timeout = None
        if deadline is not None:
            timeout = deadline - time.monotonic()
            if timeout <= 0:
                raise self._too_late(method)
        span = self._start_span(method) if self._tracing else None
        call: Any = None
        feed = _Feed(payloads)
        try:
            multicallable: Callable[..., Any] = self._channel.stream_stream(method)
            call = multicallable(feed.payloads(), timeout=timeout, metadata=_outgoing(metadata, span))
            while True:
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    break
                yield answer
            if await call.code() is not grpc.StatusCode.OK:
                raise await self._stream_failure(call)
        except grpc.aio.AioRpcError as error:
            failure = feed.error or self._failure(error)
            _failed(span, failure)
            raise failure from error
        except asyncio.CancelledError:
            if feed.error is not None:
                _failed(span, feed.error)
                raise feed.error from None
            self._raise_if_closed()
            raise
        except grpc.aio.UsageError as error:
            raise self._closed() from error
        finally:
            if call is not None and not call.done():
                call.cancel()
            if span is not None:
                span.end()

    async def close(self) -> None:
        """Closes the channel; calls in flight end with Cancelled."""
        await self._channel.close()

    def _start_span(self, method: str) -> Span | None:
        """A client span when the current trace is recorded; otherwise nothing, its context is passed on."""
        assert self._telemetry is not None
        if not trace.get_current_span().is_recording():
            return None
        span = self._telemetry.start_client_span(method[1:])
        span.set_attribute("rpc.system.name", "grpc")
        span.set_attribute("rpc.method", method[1:])
        span.set_attribute("server.address", self._address)
        return span

    def _failure(self, error: grpc.aio.AioRpcError) -> Error:
        failure = status.from_rpc_error(error)
        failure.trailing = _trailing(error.trailing_metadata() or ())
        return failure

    async def _stream_failure(self, call: Any) -> Error:
        trailing = await call.trailing_metadata() or ()
        details = next((value for key, value in trailing if key == status.DETAILS_KEY), None)
        code = Code.from_number((await call.code()).value[0])
        failure = status.from_wire(code, await call.details() or "", details)
        failure.trailing = _trailing(trailing)
        return failure

    def _too_late(self, method: str) -> Error:
        return errors.DeadlineExceeded(
            f"the deadline had passed before {method[1:]} was sent to {self._address}",
            reason="DEADLINE_EXPIRED",
        )

    def _raise_if_closed(self) -> None:
        """gRPC says CancelledError also when the channel was closed under a call that nobody cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling() == 0:
            raise self._closed()

    def _closed(self) -> Error:
        return errors.Unavailable(
            f"the connection to {self._address} was closed",
            reason="CONNECTION_CLOSED",
            metadata={"address": self._address},
        )


class _Feed:
    """The request stream of a call: an error in it is kept, because gRPC only says that the call was
    cancelled.
    """

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.error: Error | None = None

    async def payloads(self) -> AsyncIterator[bytes]:
        """The payloads, until the source ends or fails."""
        try:
            async for payload in self._source:
                yield payload
        except Error as error:
            self.error = error
            raise


def _outgoing(metadata: Metadata, span: Span | None = None) -> Metadata:
    """What is sent: the caller's forwardable metadata, and the trace context of our span in place of the
    caller's.
    """
    if span is None:
        current = trace.get_current_span()
        if not current.get_span_context().is_valid:
            if not metadata:
                return _NOTHING
            return tuple([item for item in metadata if is_forwardable(item[0])])
        span = current
    header = propagation.traceparent_of(span)
    kept = [item for item in metadata if item[0] != propagation.TRACEPARENT and is_forwardable(item[0])]
    if header is not None:
        kept.append((propagation.TRACEPARENT, header))
    return tuple(kept)


def _trailing(metadata: Any) -> Metadata:
    return tuple((key, value) for key, value in metadata if key not in _OWN_TRAILING)


def _failed(span: Span | None, error: Error) -> None:
    if span is not None:
        span.set_attribute("rpc.response.status_code", error.code.name)
        span.set_attribute("error.type", error.code.name)
        span.set_status(StatusCode.ERROR, error.message)
