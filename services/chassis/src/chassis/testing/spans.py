"""Spans kept in memory, to look at in a test."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from chassis.telemetry import Telemetry


class SpanRecorder:
    """The ended spans of one telemetry."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()

    def provider(self, *, sample_ratio: float = 1.0, service: str = "test") -> TracerProvider:
        """A tracer provider whose spans come here; several may share one recorder."""
        provider = TracerProvider(
            resource=Resource({"service.name": service}),
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return provider

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Ended spans, in the order they ended."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        """The one span with this name; fails when there are none or several."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(
                f"{len(found)} spans are named {name!r}; there are {[span.name for span in self.spans]}"
            )
        return found[0]

    def clear(self) -> None:
        """Forgets all spans."""
        self._exporter.clear()


def recording_telemetry(
    name: str = "test", *, recorder: SpanRecorder | None = None, sample_ratio: float = 1.0
) -> tuple[Telemetry, SpanRecorder]:
    """Telemetry whose spans can be looked at, and the recorder that has them."""
    kept = recorder or SpanRecorder()
    provider = kept.provider(sample_ratio=sample_ratio, service=name)
    return Telemetry(name, "0", tracer_provider=provider), kept
