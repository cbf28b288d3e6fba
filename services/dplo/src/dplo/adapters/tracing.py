"""Spans of rollouts, which outlive the process that began them.

An OpenTelemetry span is told when it ends and lives in one process. The ids of a rollout's root and of its
present phase are therefore made up front and stored with the rollout; what is called meanwhile gets them as
its parent, and the span itself is given to the exporter when it has ended, by whichever process sees that. A
crash between the two may tell a span twice, with the same ids.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace

from chassis.telemetry import Telemetry
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from dplo.app.ports import SpanFacts
from dplo.domain.rollout import TraceReference


class SpanTracer:
    """RolloutTracer on the service's own telemetry. Ids are given also where no spans are made."""

    def __init__(self, telemetry: Telemetry) -> None:
        tracer = telemetry.tracer
        self._tracer = tracer if isinstance(tracer, SdkTracer) else None
        self._scope = InstrumentationScope("penstock.dplo", telemetry.version)

    def begin(self) -> TraceReference:
        """See RolloutTracer."""
        parent = trace.get_current_span().get_span_context()
        if parent.is_valid:
            trace_id, parent_id = f"{parent.trace_id:032x}", f"{parent.span_id:016x}"
            sampled = bool(parent.trace_flags & TraceFlags.SAMPLED)
        else:
            trace_id, parent_id = f"{_random(128):032x}", ""
            sampled = self._samples(int(trace_id, 16))
        return TraceReference(trace_id, _span_id(), parent_id, _span_id(), sampled)

    def next_phase(self, reference: TraceReference) -> TraceReference:
        """See RolloutTracer."""
        return replace(reference, phase_span_id=_span_id())

    @contextlib.contextmanager
    def within(self, reference: TraceReference | None) -> Iterator[None]:
        """See RolloutTracer. Without a reference the remote side is told not to record, so that polls leave
        no spans.
        """
        if reference is None or not reference.trace_id:
            span = SpanContext(_random(128), _random(64), is_remote=False, trace_flags=TraceFlags(0))
        else:
            span = _context(reference, reference.phase_span_id)
        token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(span)))
        try:
            yield
        finally:
            otel_context.detach(token)

    def end_phase(self, reference: TraceReference, span: SpanFacts) -> None:
        """See RolloutTracer."""
        self._tell(reference, reference.phase_span_id, reference.span_id, span)

    def end_rollout(self, reference: TraceReference, span: SpanFacts) -> None:
        """See RolloutTracer."""
        self._tell(reference, reference.span_id, reference.parent_span_id, span)

    def _tell(self, reference: TraceReference, span_id: str, parent_id: str, span: SpanFacts) -> None:
        if self._tracer is None or not reference.sampled or not span_id:
            return
        told = ReadableSpan(
            name=span.name,
            context=_context(reference, span_id),
            parent=_context(reference, parent_id) if parent_id else None,
            resource=self._tracer.resource,
            attributes=dict(span.attributes),
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=int(span.started_at * 1e9),
            end_time=int(span.ended_at * 1e9),
            instrumentation_scope=self._scope,
        )
        self._tracer.span_processor.on_end(told)

    def _samples(self, trace_id: int) -> bool:
        if self._tracer is None:
            return False
        result = self._tracer.sampler.should_sample(None, trace_id, "rollout")
        return result.decision is Decision.RECORD_AND_SAMPLE


def _context(reference: TraceReference, span_id: str) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if reference.sampled else 0)
    return SpanContext(int(reference.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)


def _random(bits: int) -> int:
    return random.getrandbits(bits) or 1


def _span_id() -> str:
    return f"{_random(64):016x}"
