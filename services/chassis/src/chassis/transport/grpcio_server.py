"""Serves a `DataPath` on a grpc.aio server.

grpc.aio asks generic handlers for a method handler on each call and hands them the metadata it has parsed.
That object is made here once per call and is everything at once: the method handler for grpc.aio and the
`Call` for ours. No message classes, no interceptors, no closures; peer, deadline and certificate are read
only when asked. Errors, metrics, authentication and (sampled) spans are done inline.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from chassis import auth, errors, status
from chassis.auth import Authenticator
from chassis.errors import Error
from chassis.identity import Identity
from chassis.telemetry import Telemetry, propagation
from chassis.telemetry.metrics import MethodMetrics, RpcMetrics
from chassis.transport.port import Call, DataPath, Metadata, StreamHandler, UnaryHandler

_OK = 0
_CANCELLED = errors.Code.CANCELLED.value
_INTERNAL = errors.Code.INTERNAL.value
_NOTHING: Metadata = ()


class DataPathHandler(grpc.GenericRpcHandler):
    """One service's data path, ready to be added to a grpc.aio server."""

    def __init__(self, data_path: DataPath, telemetry: Telemetry, authenticator: Authenticator) -> None:
        self._telemetry = telemetry
        self._authenticator = authenticator
        self._routes: dict[str, _Route] = {}
        for method, unary in data_path.unary.items():
            self._routes[method] = self._route(_UnaryCall, unary, method)
        for method, stream in data_path.stream.items():
            self._routes[method] = self._route(_StreamCall, stream, method)
        self._fallbacks: Mapping[str, _Route] = {
            service: self._route(kind, handler, f"/{service}/{RpcMetrics.OTHER}")
            for kind, handlers in (
                (_StreamCall, data_path.fallback_stream),
                (_UnaryCall, data_path.fallback_unary),
            )
            for service, handler in handlers.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one call, or None for methods that belong to somebody else."""
        method = handler_call_details.method
        route = self._routes.get(method)
        if route is None:
            if not self._fallbacks:
                return None
            route = self._fallbacks.get(method[1 : method.rfind("/")])
            if route is None:
                return None
        return route.kind(method, handler_call_details.invocation_metadata, route)

    def _route(self, kind: type["_GrpcCall"], handler: UnaryHandler | StreamHandler, method: str) -> "_Route":
        service = method[1 : method.rfind("/")]
        authenticator = self._authenticator
        checked = authenticator.enabled and service not in authenticator.exempt_services
        return _Route(kind, handler, self._telemetry, authenticator if checked else None, method)


class _Route:
    """What all calls of one method share."""

    __slots__ = ("authenticator", "handler", "kind", "metrics", "telemetry", "tracing")

    def __init__(
        self,
        kind: type["_GrpcCall"],
        handler: Any,
        telemetry: Telemetry,
        authenticator: Authenticator | None,
        method: str,
    ) -> None:
        self.kind = kind
        self.handler = handler
        self.telemetry = telemetry
        self.authenticator = authenticator
        self.tracing = telemetry.tracing
        self.metrics: MethodMetrics = telemetry.rpc_server.method(method)


class _GrpcCall(Call):
    """A call and its grpc.aio method handler. The class attributes are what grpc.aio reads of a handler."""

    __slots__ = ("_context", "_route", "_span", "_token")

    request_streaming = False
    response_streaming = False
    request_deserializer = None
    response_serializer = None
    unary_unary: Any = None
    unary_stream: Any = None
    stream_unary: Any = None
    stream_stream: Any = None

    def __init__(self, method: str, metadata: Metadata, route: _Route) -> None:
        # Not calling the base: these few assignments are a measurable part of the adapter's cost.
        self.method = method
        self._metadata = metadata or _NOTHING
        self._identity = None
        self._deadline = None
        self.trailing = _NOTHING
        self._route = route
        self._context: Any = None
        self._span: Span | None = None
        self._token: Any = None

    @property
    def deadline(self) -> float | None:
        """Read from gRPC when first asked."""
        if self._deadline is None and self._context is not None:
            remaining = self._context.time_remaining()
            if remaining is not None:
                self._deadline = time.monotonic() + remaining
        return self._deadline

    @property
    def peer(self) -> str:
        """Read from gRPC when asked."""
        return str(self._context.peer())

    def _authenticate(self, authenticator: Authenticator) -> None:
        names: tuple[str, ...] = ()
        if authenticator.mutual_tls:
            names = auth.certificate_names(self._context.auth_context() or {})
        self._identity: Identity | None = authenticator.authenticate(
            self.metadata_value("authorization"), names
        )

    def _begin_span(self, route: _Route) -> None:
        """Continues the caller's trace; for one that is not sampled only its context is kept."""
        traceparent = self.metadata_value(propagation.TRACEPARENT)
        state = self.metadata_value(propagation.TRACESTATE) if traceparent else None
        if traceparent is not None and not propagation.is_sampled(traceparent):
            self._token = otel_context.attach(propagation.parent(traceparent, state))
            return
        span = route.telemetry.start_server_span(self.method[1:], traceparent, state)
        if span.is_recording():
            span.set_attribute("rpc.system.name", "grpc")
            span.set_attribute("rpc.method", self.method[1:])
            span.set_attribute("network.peer.address", self.peer)
            self._span = span
        self._token = otel_context.attach(trace.set_span_in_context(span))

    def _end_span(self, code: int) -> None:
        span = self._span
        if span is not None:
            span.set_attribute("rpc.response.status_code", status.code_name(code))
            if code in _SERVER_FAULTS:
                span.set_status(StatusCode.ERROR)
            span.end()
        otel_context.detach(self._token)

    def _unexpected(self, error: Exception) -> Error:
        telemetry = self._route.telemetry
        telemetry.unexpected.labels(self._route.metrics.method).inc()
        telemetry.logger.error("unexpected error in a call", method=self.method, exc_info=error)
        return status.unknown(error)

    async def _abort(self, error: Error) -> NoReturn:
        trailing = (*self.trailing, *error.trailing, (status.DETAILS_KEY, status.wire_details(error)))
        await self._context.abort(status.GRPC_CODES[error.code], status.wire_message(error), trailing)
        raise AssertionError("context.abort returned")


async def _received(payloads: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """The request stream. grpc.aio ends it the same way when the caller finished and when it went away.

    A handler must not take half an upload for a whole one: for a caller that went away this waits, and the
    cancellation that is on its way ends the wait.
    """
    async for payload in payloads:
        yield payload
    for _ in range(3):
        if context.cancelled():
            await asyncio.Event().wait()
        await asyncio.sleep(0)


_SERVER_FAULTS = frozenset(
    code.value
    for code in (
        errors.Code.UNKNOWN,
        errors.Code.DEADLINE_EXCEEDED,
        errors.Code.UNIMPLEMENTED,
        errors.Code.INTERNAL,
        errors.Code.UNAVAILABLE,
        errors.Code.DATA_LOSS,
    )
)


class _UnaryCall(_GrpcCall):
    """One message in, one message out."""

    __slots__ = ()

    async def unary_unary(self, payload: bytes, context: Any) -> bytes:
        """Runs the handler."""
        route = self._route
        self._context = context
        metrics = route.metrics
        metrics.active += 1
        code = _OK
        started = time.perf_counter()
        try:
            if route.authenticator is not None:
                self._authenticate(route.authenticator)
            if route.tracing:
                self._begin_span(route)
            answer: bytes = await route.handler(self, payload)
            if self.trailing:
                context.set_trailing_metadata(self.trailing)
            return answer
        except Error as error:
            code = error.code.value
            await self._abort(error)
        except asyncio.CancelledError:
            code = _CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the last line before the wire
            code = _INTERNAL
            await self._abort(self._unexpected(error))
        finally:
            metrics.active -= 1
            metrics.observe(code, time.perf_counter() - started)
            if self._token is not None:
                self._end_span(code)


class _StreamCall(_GrpcCall):
    """A stream in, a stream out. Written as reader and writer, so that the whole call stays in one task."""

    __slots__ = ()

    request_streaming = True
    response_streaming = True

    async def stream_stream(self, payloads: AsyncIterator[bytes], context: Any) -> None:
        """Runs the handler and sends what it yields; a slow caller slows the handler."""
        route = self._route
        self._context = context
        metrics = route.metrics
        metrics.active += 1
        code = _OK
        started = time.perf_counter()
        try:
            if route.authenticator is not None:
                self._authenticate(route.authenticator)
            if route.tracing:
                self._begin_span(route)
            await self._write_all(route.handler(self, _received(payloads, context)), context)
            if self.trailing:
                context.set_trailing_metadata(self.trailing)
        except Error as error:
            code = error.code.value
            await self._abort(error)
        except asyncio.CancelledError:
            code = _CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the last line before the wire
            code = _INTERNAL
            await self._abort(self._unexpected(error))
        finally:
            metrics.active -= 1
            metrics.observe(code, time.perf_counter() - started)
            if self._token is not None:
                self._end_span(code)

    @staticmethod
    async def _write_all(answers: AsyncIterator[bytes], context: Any) -> None:
        try:
            async for answer in answers:
                await context.write(answer)
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()
