"""Traces, metrics and logs of one service instance; every provider can be injected.

Nothing here touches OpenTelemetry's globals: a test may run three services in one process and tell their
spans apart. With the exporter `off` there is no tracer provider at all, so the request path only tests a
flag.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider, Span, SpanKind, Tracer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from chassis.clock import Clock, SystemClock
from chassis.settings import TelemetrySettings
from chassis.telemetry import metrics as instruments
from chassis.telemetry import propagation
from chassis.telemetry.bridge import BridgingExporter, EverythingCollector
from chassis.telemetry.logs import Logger, OtlpHandler, get_logger
from chassis.telemetry.spans import ConsoleExporter, JsonLinesExporter, span_file

__all__ = ["Logger", "Telemetry", "create", "get_logger"]


class Telemetry:
    """What a service measures itself with.

    `tracing` says whether spans are made; `tracer`, `meter` and `logger` are for the service's own use;
    `registry` holds Prometheus instruments (use it directly where a few microseconds matter); `rpc_server`,
     and `http` are the chassis's own instruments.
    """

    def __init__(
        self,
        name: str,
        version: str,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        registry: CollectorRegistry | None = None,
        metric_readers: Sequence[MetricReader] = (),
        resource: Resource | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.tracing = tracer_provider is not None
        self._tracer_provider = tracer_provider or NoOpTracerProvider()
        self.tracer: Tracer = self._tracer_provider.get_tracer("penstock." + name, version)
        self.registry = registry or instruments.process_registry()
        self.rpc_server = instruments.RpcMetrics(self.registry)
        self.http = instruments.HttpMetrics(self.registry)
        self.unexpected = instruments.error_counter(self.registry)
        self.logger = get_logger("penstock." + name)
        self._closers: list[Any] = []
        self._handlers: list[logging.Handler] = []
        scrape = InMemoryMetricReader()
        self.meter_provider = MeterProvider(
            metric_readers=[scrape, *metric_readers],
            resource=resource or Resource.get_empty(),
            shutdown_on_exit=False,
        )
        self.meter: Meter = self.meter_provider.get_meter("penstock." + name, version)
        self._exposed = CollectorRegistry()
        self._exposed.register(EverythingCollector(self.registry, scrape))

    def start_server_span(self, name: str, traceparent: str | None, tracestate: str | None) -> Span:
        """A server span as child of the remote caller. The caller's sampling decision wins."""
        context = propagation.parent(traceparent, tracestate)
        return self.tracer.start_span(name, context=context, kind=SpanKind.SERVER)

    def start_client_span(self, name: str, context: Context | None = None) -> Span:
        """A client span as child of the current one."""
        return self.tracer.start_span(name, context=context, kind=SpanKind.CLIENT)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The Prometheus exposition and its content type, in the format the scraper accepts."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._exposed), content_type

    async def flush(self, timeout: float = 5.0) -> None:
        """Sends what is buffered. Runs in threads, as the exporters block."""
        providers = [self._tracer_provider, self.meter_provider, *self._closers]
        flushes = [p.force_flush for p in providers if hasattr(p, "force_flush")]
        await asyncio.gather(*(_within(flush, timeout) for flush in flushes))

    async def shutdown(self, timeout: float = 5.0) -> None:
        """Flushes and closes; nothing is exported after it."""
        await self.flush(timeout)
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
        providers = [self._tracer_provider, self.meter_provider, *self._closers]
        stops = [p.shutdown for p in providers if hasattr(p, "shutdown")]
        await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops))

    def send_logs(self, handler: logging.Handler, provider: LoggerProvider) -> None:
        """Sends the process's logs through a handler and its provider for as long as this telemetry lives."""
        self._handlers.append(handler)
        self._closers.append(provider)
        logging.getLogger().addHandler(handler)


async def _within(flush: Any, timeout: float) -> None:
    await asyncio.to_thread(flush, int(timeout * 1000))


def create(
    settings: TelemetrySettings,
    name: str,
    version: str,
    *,
    instance_id: str = "",
    clock: Clock | None = None,
) -> Telemetry:
    """Telemetry as the settings say."""
    resource = Resource.create(
        {
            "service.name": name,
            "service.namespace": "penstock",
            "service.version": version,
            "service.instance.id": settings.instance_id or instance_id or str(uuid.uuid4()),
            **settings.resource,
        }
    )
    if settings.exporter == "off":
        return Telemetry(name, version)
    tracer_provider = TracerProvider(
        resource=resource,
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        shutdown_on_exit=False,
    )
    delay = 5000 if settings.exporter == "otlp" else 200
    tracer_provider.add_span_processor(
        BatchSpanProcessor(_span_exporter(settings, name), schedule_delay_millis=delay)
    )
    if settings.exporter != "otlp":
        return Telemetry(name, version, tracer_provider=tracer_provider)
    registry = instruments.process_registry()
    telemetry = Telemetry(
        name,
        version,
        tracer_provider=tracer_provider,
        registry=registry,
        metric_readers=[_metric_sender(settings, registry, resource)],
        resource=resource,
    )
    _measure_uptime(telemetry, clock or SystemClock())
    _send_logs(settings, telemetry, resource)
    return telemetry


def _span_exporter(settings: TelemetrySettings, name: str) -> SpanExporter:
    if settings.exporter == "console":
        return ConsoleExporter()
    if settings.exporter == "file":
        assert settings.file is not None
        return JsonLinesExporter(span_file(settings.file, name))
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=settings.endpoint, headers=_headers(settings))


def _metric_sender(
    settings: TelemetrySettings, registry: CollectorRegistry, resource: Resource
) -> MetricReader:
    # Imported here because the exporters cost 100 ms of start-up that `off` and `file` need not pay.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(endpoint=settings.endpoint, headers=_headers(settings))
    return PeriodicExportingMetricReader(
        BridgingExporter(exporter, registry, resource),
        export_interval_millis=settings.metrics_interval * 1000,
    )


def _measure_uptime(telemetry: Telemetry, clock: Clock) -> None:
    """Besides being worth knowing: a reader exports nothing while no instrument of the SDK's is there."""
    started = clock.monotonic()

    def uptime(options: CallbackOptions) -> list[Observation]:
        return [Observation(clock.monotonic() - started)]

    telemetry.meter.create_observable_gauge(
        "process.uptime",
        callbacks=[uptime],
        unit="s",
        description="The time the process has been running.",
    )


def _send_logs(settings: TelemetrySettings, telemetry: Telemetry, resource: Resource) -> None:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    exporter = OTLPLogExporter(endpoint=settings.endpoint, headers=_headers(settings))
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    telemetry.send_logs(OtlpHandler(provider), provider)


def _headers(settings: TelemetrySettings) -> dict[str, str]:
    return {key.lower(): value.get_secret_value() for key, value in settings.headers.items()}
