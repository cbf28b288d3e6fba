"""The gateway's own metrics, read from its counts when scraped: the request path does not pay for them
again.
"""

from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from aigw.app.access_log import AccessLog
from aigw.app.routing import Router
from aigw.domain.traffic import BUCKETS, Counts, TrafficLog, upper_bound

_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LABELS = ("model", "version")


class GatewayCollector(Collector):
    """Requests, latency, upstream errors, ejections, endpoints and access log lines."""

    def __init__(self, traffic: TrafficLog, router: Router, access_log: AccessLog) -> None:
        self._traffic = traffic
        self._router = router
        self._access_log = access_log

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._of_calls()
        yield from self._of_endpoints()
        lines = CounterMetricFamily("aigw_access_log_lines", "Lines of the access log.", labels=("outcome",))
        lines.add_metric(("written",), self._access_log.written)
        lines.add_metric(("dropped",), self._access_log.dropped)
        yield lines

    def _of_calls(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("aigw_requests", "Calls that ended.", labels=(*_LABELS, "code"))
        retries = CounterMetricFamily("aigw_retries", "Attempts beyond the first.", labels=_LABELS)
        received = CounterMetricFamily("aigw_request_bytes", "Bytes of requests.", labels=_LABELS)
        sent = CounterMetricFamily("aigw_response_bytes", "Bytes of answers.", labels=_LABELS)
        failed = CounterMetricFamily(
            "aigw_upstream_errors",
            "Attempts that failed, whatever became of the call.",
            labels=(*_LABELS, "code"),
        )
        ejections = CounterMetricFamily("aigw_ejections", "Endpoints put aside.", labels=_LABELS)
        latency = HistogramMetricFamily(
            "aigw_request_duration_seconds",
            "Duration of successful calls, all attempts included.",
            labels=_LABELS,
        )
        for model, version, series in self._traffic:
            labels, total = (model, version), series.total
            if not total.requests:
                continue
            for code, count in total.codes.items():
                requests.add_metric((*labels, code.name), count)
            for code, count in series.upstream_errors.items():
                failed.add_metric((*labels, code.name), count)
            retries.add_metric(labels, total.retries)
            received.add_metric(labels, total.request_bytes)
            sent.add_metric(labels, total.response_bytes)
            ejections.add_metric(labels, series.ejections)
            latency.add_metric(labels, _cumulative(total), total.latency_sum)
        yield from (requests, retries, received, sent, failed, ejections, latency)

    def _of_endpoints(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("aigw_endpoints", "Endpoints by state.", labels=(*_LABELS, "state"))
        in_flight = GaugeMetricFamily("aigw_in_flight_requests", "Attempts in flight.", labels=_LABELS)
        for model, entry in self._router.table.entries.items():
            for seen in entry.observe():
                labels = (model, seen.version)
                states.add_metric((*labels, "ready"), seen.ready)
                states.add_metric((*labels, "draining"), seen.draining)
                states.add_metric((*labels, "ejected"), seen.ejected)
                flying = sum(r.in_flight for r in entry.replicas if r.version == seen.version)
                in_flight.add_metric(labels, flying)
        yield from (states, in_flight)


def _cumulative(counts: Counts) -> list[tuple[str, float]]:
    """The fine buckets as Prometheus's few; each one is put where its upper bound fits."""
    histogram = counts.histogram
    edges = [(f"{edge:g}", float(_below(histogram, edge))) for edge in _EDGES]
    return [*edges, ("+Inf", float(counts.successes))]


def _below(histogram: dict[int, int], edge: float) -> int:
    return sum(
        count
        for bucket, count in histogram.items()
        if bucket < BUCKETS - 1 and upper_bound(bucket) <= edge * 1.0001
    )
