"""Spans of rollouts: one trace, right parents, also when another process ends what one began."""

from chassis.telemetry import Telemetry, propagation
from chassis.testing.spans import SpanRecorder, recording_telemetry
from dplo.adapters.tracing import SpanTracer
from dplo.app.ports import SpanFacts
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan


def facts(name: str, start: float, end: float, error: str = "") -> SpanFacts:
    return SpanFacts(name, start, end, (("penstock.revision", 1),), error)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    context = span.get_span_context()
    assert context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_phases_are_children_of_the_root_which_is_a_child_of_the_call_that_began_it() -> None:
    telemetry, recorder = recording_telemetry("dplo")
    tracer = SpanTracer(telemetry)
    with telemetry.tracer.start_as_current_span("ApplyDeployment") as call:
        first = tracer.begin()
    tracer.end_phase(first, facts("resolve", 1.0, 2.0))
    second = SpanTracer(telemetry_of(recorder)).next_phase(first)
    SpanTracer(telemetry_of(recorder)).end_phase(second, facts("place", 2.0, 3.0, "no room"))
    SpanTracer(telemetry_of(recorder)).end_rollout(second, facts("rollout", 1.0, 3.0))
    called = f"{call.get_span_context().span_id:016x}"
    trace_id = f"{call.get_span_context().trace_id:032x}"
    assert ids(recorder.named("rollout")) == (trace_id, first.span_id, called)
    assert ids(recorder.named("resolve")) == (trace_id, first.phase_span_id, first.span_id)
    assert ids(recorder.named("place")) == (trace_id, second.phase_span_id, first.span_id)
    assert recorder.named("place").status.description == "no room"
    assert (recorder.named("rollout").start_time, recorder.named("rollout").end_time) == (10**9, 3 * 10**9)


def telemetry_of(recorder: SpanRecorder) -> Telemetry:
    """The same collector, another process."""
    return recording_telemetry("dplo", recorder=recorder)[0]


def test_calls_within_a_phase_carry_it_as_their_parent() -> None:
    telemetry, _ = recording_telemetry("dplo")
    tracer = SpanTracer(telemetry)
    reference = tracer.begin()
    with tracer.within(reference):
        header = dict(propagation.injected())["traceparent"]
    assert header == f"00-{reference.trace_id}-{reference.phase_span_id}-01"
    assert not trace.get_current_span().get_span_context().is_valid


def test_polls_tell_the_other_side_not_to_record() -> None:
    telemetry, recorder = recording_telemetry("dplo")
    with SpanTracer(telemetry).within(None):
        header = dict(propagation.injected())["traceparent"]
        with telemetry.tracer.start_as_current_span("poll"):
            pass
    assert header.endswith("-00")
    assert recorder.spans == ()


def test_without_tracing_ids_are_given_and_nothing_is_told() -> None:
    tracer = SpanTracer(Telemetry("dplo", "0"))
    reference = tracer.begin()
    assert len(reference.trace_id) == 32
    assert not reference.sampled
    tracer.end_rollout(reference, facts("rollout", 1.0, 2.0))
