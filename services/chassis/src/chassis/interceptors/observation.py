"""Span, metrics and log line of each control-plane call."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from chassis.errors import Code, Error
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour, metadata_value
from chassis.telemetry import Telemetry, propagation

_SERVER_FAULTS = frozenset(
    {
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)


class ObservationInterceptor:
    """One server span (when sampled), one duration by code, one log line for what went wrong unexpectedly."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """Observes a call with one answer."""

        async def behave(request: Any, context: Context) -> Any:
            observed = _Observed(self._telemetry, method.name, context)
            try:
                return await proceed(request, context)
            except BaseException as error:
                observed.failed(error)
                raise
            finally:
                observed.end()

        return behave

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """Observes a call with a stream of answers, until its end."""

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            observed = _Observed(self._telemetry, method.name, context)
            try:
                async for item in proceed(request, context):
                    yield item
            except BaseException as error:
                observed.failed(error)
                raise
            finally:
                observed.end()

        return behave


class _Observed:
    """One call in flight."""

    def __init__(self, telemetry: Telemetry, method: str, context: Context) -> None:
        self._telemetry = telemetry
        self._context = context
        self._metrics = telemetry.rpc_server.method(method)
        self._metrics.active += 1
        self._code = Code.OK
        self._error: BaseException | None = None
        self._span: Span | None = None
        self._token: Any = None
        if telemetry.tracing:
            self._span, self._token = self._begin(method)
        self._started = time.perf_counter()

    def _begin(self, method: str) -> tuple[Span, Any]:
        current = trace.get_current_span()
        if current.get_span_context().is_valid:  # the REST face is around this call: its span is the parent
            span = self._telemetry.tracer.start_span(method, kind=trace.SpanKind.INTERNAL)
        else:
            span = self._telemetry.start_server_span(
                method,
                metadata_value(self._context, propagation.TRACEPARENT),
                metadata_value(self._context, propagation.TRACESTATE),
            )
        if span.is_recording():
            span.set_attribute("rpc.system.name", "grpc")
            span.set_attribute("rpc.method", method)
            span.set_attribute("network.peer.address", str(self._context.peer()))
        return span, otel_context.attach(trace.set_span_in_context(span))

    def failed(self, error: BaseException) -> None:
        """Notes how the call failed; what nobody expected is logged with everything about it."""
        if isinstance(error, Error):
            self._code, self._error = error.code, error
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code = Code.CANCELLED
        elif isinstance(error, grpc.aio.AbortError):
            self._code = _context_code(self._context)
        else:
            self._code, self._error = Code.INTERNAL, error
            self._telemetry.unexpected.labels(self._metrics.method).inc()
            self._telemetry.logger.error(
                "unexpected error in a call", method=self._metrics.method, exc_info=error
            )

    def end(self) -> None:
        """Measures and ends the span."""
        self._metrics.active -= 1
        self._metrics.observe(self._code.value, time.perf_counter() - self._started)
        if self._span is None:
            return
        if self._span.is_recording():
            self._span.set_attribute("rpc.response.status_code", self._code.name)
            if self._code in _SERVER_FAULTS:
                self._span.set_status(StatusCode.ERROR, str(self._error or self._code.name))
                if self._error is not None:
                    self._span.set_attribute("error.type", type(self._error).__name__)
        self._span.end()
        otel_context.detach(self._token)


def _context_code(context: Context) -> Code:
    code = context.code()
    if code is None:
        return Code.UNKNOWN
    return Code.from_number(code.value[0] if isinstance(code, grpc.StatusCode) else int(code))
