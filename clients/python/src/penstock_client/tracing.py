"""Client spans and W3C trace context.

By default the process's own OpenTelemetry set-up is used: an application that traces sees our spans among
its own, and one that does not pays nothing. `penstock_client.exporting` makes a provider for the `penstock`
command and scripts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock_client.errors import PenstockError

_W3C = TraceContextTextMapPropagator()


class CallSpan:
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def headers(self) -> Mapping[str, str]:
        """The trace context to send, in W3C form; empty when nobody traces."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(self._span))
        return carrier

    def set(self, key: str, value: str | int) -> None:
        """Adds an attribute."""
        self._span.set_attribute(key, value)

    def retried(self, attempt: int, error: PenstockError) -> None:
        """Notes a failed attempt that another one follows."""
        self._span.add_event("retry", {"attempt": attempt, "code": error.code.name, "reason": error.reason})

    def fail(self, error: PenstockError) -> None:
        """Notes how the call failed."""
        self._span.set_attribute("rpc.response.status_code", error.code.name)
        self._span.set_attribute("error.type", error.reason)
        self._span.set_status(Status(StatusCode.ERROR, error.message))


class Spans:
    """Makes the spans of one client."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("penstock_client", tracer_provider=provider)

    @contextlib.contextmanager
    def call(self, service: str, method: str, address: str, *, system: str = "grpc") -> Iterator[CallSpan]:
        """A client span around one call. It is not made current: a stream's call ends in another context
        than it began in when its reader leaves early.
        """
        host, _, port = address.rpartition(":")
        attributes: dict[str, str | int] = {
            "rpc.system.name": system,
            "rpc.method": f"{service}/{method}",
            "server.address": host,
        }
        if port.isdigit():
            attributes["server.port"] = int(port)
        span = self._tracer.start_span(f"{service}/{method}", kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield CallSpan(span)
        finally:
            span.end()

    @contextlib.contextmanager
    def step(self, name: str, **attributes: str | int) -> Iterator[CallSpan]:
        """A span around several calls that are one thing to the caller."""
        with self._tracer.start_as_current_span(name, attributes=attributes) as span:
            yield CallSpan(span)
