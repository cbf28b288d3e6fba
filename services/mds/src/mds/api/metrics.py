"""Metrics of served models for Prometheus, read from their statistics when scraped: the path pays nothing."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mds.app.model import ServedModel
from mds.app.statistics import Histogram

_LABELS = ("model", "version")


class ModelMetrics(Collector):
    """All models of a server."""

    def __init__(self, models: Callable[[], Sequence[ServedModel]]) -> None:
        self._models = models

    def describe(self) -> Iterator[Metric]:
        """Nothing before there is something."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Counters, gauges and histograms by model and version."""
        queue = HistogramMetricFamily("mds_queue_seconds", "Time requests waited.", labels=_LABELS)
        run = HistogramMetricFamily("mds_inference_seconds", "Time of runs of the model.", labels=_LABELS)
        sizes = HistogramMetricFamily("mds_batch_items", "Items of a run.", labels=_LABELS)
        requests = CounterMetricFamily("mds_requests", "Requests by code.", labels=(*_LABELS, "code"))
        items = CounterMetricFamily("mds_items", "Items inferred.", labels=_LABELS)
        shed = CounterMetricFamily("mds_shed", "Requests that could not be done in time.", labels=_LABELS)
        refused = CounterMetricFamily("mds_rejected", "Requests refused by a full queue.", labels=_LABELS)
        waiting = GaugeMetricFamily("mds_waiting_requests", "Requests that wait.", labels=_LABELS)
        flying = GaugeMetricFamily("mds_in_flight_requests", "Requests waiting or running.", labels=_LABELS)
        for model in self._models():
            statistics, labels = model.statistics, (model.name, model.version)
            for family, histogram in (
                (queue, statistics.queue_seconds),
                (run, statistics.inference_seconds),
                (sizes, statistics.batch_items),
            ):
                family.add_metric(labels, _buckets(histogram), histogram.sum)
            requests.add_metric((*labels, "OK"), statistics.succeeded)
            for code, count in sorted(statistics.failed.items()):
                requests.add_metric((*labels, code), count)
            items.add_metric(labels, statistics.items)
            shed.add_metric(labels, statistics.shed)
            refused.add_metric(labels, statistics.rejected)
            waiting.add_metric(labels, model.batcher.waiting if model.batcher is not None else 0)
            flying.add_metric(labels, model.in_flight)
        yield from (queue, run, sizes, requests, items, shed, refused, waiting, flying)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    return buckets
