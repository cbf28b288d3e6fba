"""W3C trace context (https://www.w3.org/TR/trace-context/) in and out of gRPC metadata and HTTP headers.

Parsed by hand, because it runs on every call of the data path: OpenTelemetry's propagator costs several times
as much and builds a context even for what is not sampled.
"""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_HEX = frozenset("0123456789abcdef")


def parse(traceparent: str | None, tracestate: str | None = None) -> SpanContext | None:
    """The remote span context of a traceparent; None when absent or malformed (then a new trace starts)."""
    if traceparent is None or len(traceparent) < 55:
        return None
    version, trace_id, span_id, flags = (
        traceparent[:2],
        traceparent[3:35],
        traceparent[36:52],
        traceparent[53:55],
    )
    if traceparent[2] != "-" or traceparent[35] != "-" or traceparent[52] != "-" or version == "ff":
        return None
    if len(traceparent) > 55 and (version == "00" or traceparent[55] != "-"):
        return None
    if not _HEX.issuperset(version + trace_id + span_id + flags):
        return None
    trace_number, span_number = int(trace_id, 16), int(span_id, 16)
    if trace_number == 0 or span_number == 0:
        return None
    return SpanContext(
        trace_number,
        span_number,
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )


def is_sampled(traceparent: str) -> bool:
    """Whether the caller records this trace, read from the flags alone; a malformed header says no."""
    return len(traceparent) >= 55 and traceparent[54] in "13579bdf"


def parent(traceparent: str | None, tracestate: str | None = None) -> Context:
    """A context whose span is the remote caller's; an empty one when there is none."""
    remote = parse(traceparent, tracestate)
    return Context() if remote is None else trace.set_span_in_context(NonRecordingSpan(remote), Context())


def traceparent_of(span: Span) -> str | None:
    """The header that makes a remote span a child of this one; None for an invalid span."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def injected() -> tuple[tuple[str, str], ...]:
    """Metadata that carries the current span; empty when there is none."""
    span = trace.get_current_span()
    header = traceparent_of(span)
    if header is None:
        return ()
    state = span.get_span_context().trace_state
    return ((TRACEPARENT, header), (TRACESTATE, state.to_header())) if state else ((TRACEPARENT, header),)
