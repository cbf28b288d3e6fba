"""Conversion between Prometheus metric families and OpenTelemetry metric data, in both directions.

Request metrics live in prometheus-client (cheap on the path, see `chassis.telemetry.metrics`); services' own
instruments, made through `Telemetry.meter`, live in the OpenTelemetry SDK. `/metrics` shows both and OTLP
sends both: each side gets the other's by conversion when somebody asks, never per call.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from chassis.telemetry.metrics import ATTRIBUTES, CONVENTIONS

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": ""}
_INVALID = re.compile(r"[^a-zA-Z0-9_]")


class EverythingCollector(Collector):
    """What `/metrics` shows: a Prometheus registry and the instruments of an SDK meter provider."""

    def __init__(self, registry: CollectorRegistry, reader: InMemoryMetricReader) -> None:
        self._registry = registry
        self._reader = reader

    def describe(self) -> Iterable[Metric]:
        """Nothing: instruments come and go."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of everything measured so far."""
        yield from self._registry.collect()
        data = self._reader.get_metrics_data()
        if data is None:
            return
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    yield from _to_prometheus(metric)


class BridgingExporter(MetricExporter):
    """Adds the families of a Prometheus registry to what another exporter sends."""

    def __init__(
        self,
        exporter: MetricExporter,
        registry: CollectorRegistry,
        resource: Resource,
    ) -> None:
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,
            preferred_aggregation=exporter._preferred_aggregation,
        )
        self._exporter = exporter
        self._registry = registry
        self._resource = resource
        self._started = time.time_ns()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Sends SDK metrics and converted ones together."""
        converted = to_otel(self._registry.collect(), start=self._started, now=time.time_ns())
        scopes = [scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics]
        scopes.append(ScopeMetrics(InstrumentationScope("chassis"), converted, ""))
        # One entry: the OTLP encoder keeps only the last one of each resource.
        everything = MetricsData([ResourceMetrics(self._resource, scopes, "")])
        return self._exporter.export(everything, timeout_millis=timeout_millis)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Passed on."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Passed on."""
        self._exporter.shutdown(timeout_millis=timeout_millis)


def to_otel(metrics: Iterable[Metric], *, start: int, now: int) -> list[OtelMetric]:
    """OpenTelemetry metrics of Prometheus families; times are nanoseconds since the epoch."""
    result: list[OtelMetric] = []
    for metric in metrics:
        name, unit = CONVENTIONS.get(metric.name, (metric.name, metric.unit or ""))
        data: Sum | Gauge | Histogram
        if metric.type == "counter":
            points = [
                NumberDataPoint(_attributes(s.labels), start, now, s.value)
                for s in metric.samples
                if s.name.endswith("_total")
            ]
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        elif metric.type == "histogram":
            data = Histogram(
                list(_histogram_points(metric.samples, start, now)), AggregationTemporality.CUMULATIVE
            )
        elif metric.type in ("gauge", "unknown"):
            data = Gauge(
                [NumberDataPoint(_attributes(s.labels), start, now, s.value) for s in metric.samples]
            )
        else:
            continue  # info and summary families are the process's own trivia
        if data.data_points:
            result.append(OtelMetric(name, metric.documentation, unit, data))
    return result


def _histogram_points(samples: Sequence[Sample], start: int, now: int) -> Iterator[HistogramDataPoint]:
    grouped: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        grouped.setdefault(key, []).append(sample)
    for key, group in grouped.items():
        buckets = [(float(s.labels["le"]), s.value) for s in group if s.name.endswith("_bucket")]
        total = next((s.value for s in group if s.name.endswith("_sum")), 0.0)
        cumulative = [count for _, count in buckets]
        counts = [int(count - below) for count, below in zip(cumulative, [0.0, *cumulative], strict=False)]
        yield HistogramDataPoint(
            attributes=_attributes(dict(key)),
            start_time_unix_nano=start,
            time_unix_nano=now,
            count=int(cumulative[-1]) if cumulative else 0,
            sum=total,
            bucket_counts=counts,
            explicit_bounds=[bound for bound, _ in buckets if bound != float("inf")],
            min=float("nan"),
            max=float("nan"),
        )


def _attributes(labels: Mapping[str, str]) -> dict[str, str]:
    return {ATTRIBUTES.get(name, name): value for name, value in labels.items()}


def _to_prometheus(metric: OtelMetric) -> Iterator[Metric]:
    name = _prometheus_name(metric)
    data = metric.data
    label_names = sorted({_label(key) for point in data.data_points for key in point.attributes or {}})
    if isinstance(data, Histogram):
        family = HistogramMetricFamily(name, metric.description or name, labels=label_names)
        for point in data.data_points:
            family.add_metric(_values(point.attributes, label_names), _cumulative(point), point.sum)
        yield family
    elif isinstance(data, Sum | Gauge):
        monotonic = isinstance(data, Sum) and data.is_monotonic
        kind = CounterMetricFamily if monotonic else GaugeMetricFamily
        numbers = kind(name, metric.description or name, labels=label_names)
        for number in data.data_points:
            numbers.add_metric(_values(number.attributes, label_names), number.value)
        yield numbers


def _cumulative(point: HistogramDataPoint) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    return buckets


def _prometheus_name(metric: OtelMetric) -> str:
    name = _INVALID.sub("_", metric.name)
    unit = _UNITS.get(metric.unit or "", "")
    return f"{name}_{unit}" if unit and not name.endswith(unit) else name


def _label(key: str) -> str:
    return _INVALID.sub("_", key)


def _values(attributes: Mapping[str, object] | None, names: Sequence[str]) -> list[str]:
    spelt = {_label(key): str(value) for key, value in (attributes or {}).items()}
    return [spelt.get(name, "") for name in names]
