"""Logs: structlog on top of the standard library's logging, with the ids of the current trace in each line.

Services may log through either; both come out the same. Configuration of the process happens once, in
`configure`, called by the service's entry point; importing and making loggers changes nothing.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import orjson
import structlog
from opentelemetry import trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.trace import format_span_id, format_trace_id

from chassis.settings import TelemetrySettings

Logger = structlog.stdlib.BoundLogger

_SEVERITY = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}
_QUIET = {"uvicorn": logging.WARNING, "uvicorn.error": logging.WARNING, "grpc": logging.ERROR}


def add_trace_ids(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: `trace_id` and `span_id` of the current span, when there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event


_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    add_trace_ids,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def get_logger(name: str) -> Logger:
    """A structured logger: `log.info("route changed", route=name, weight=10)`."""
    logger: Logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def configure(settings: TelemetrySettings, *, service: str) -> None:
    """Sends the process's logs to stderr, one line each, and sets levels. For entry points only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED),
            processors=[
                _named(service),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderer(settings.log_format),
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


class OtlpHandler(logging.Handler):
    """Hands log records to an OpenTelemetry logger provider, with the span they were written in."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Converts and passes on one record."""
        if record.name.startswith("opentelemetry"):
            return  # an exporter that fails must not feed itself
        body, attributes = _body(record)
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=_SEVERITY.get(record.levelno, SeverityNumber.UNSPECIFIED),
                body=body,
                attributes=attributes,
                exception=_exception(record),
            )
        )


def _body(record: logging.LogRecord) -> tuple[str, Mapping[str, Any]]:
    if isinstance(record.msg, Mapping):
        event = {str(key): _attribute(value) for key, value in record.msg.items() if not key.startswith("_")}
        for known in ("logger", "level", "timestamp", "trace_id", "span_id", "exc_info"):
            event.pop(known, None)
        return str(event.pop("event", "")), event
    return record.getMessage(), {}


def _exception(record: logging.LogRecord) -> BaseException | None:
    """structlog keeps `exc_info` in its event: an exception, a triple, or true for the current one."""
    given = record.msg.get("exc_info") if isinstance(record.msg, Mapping) else record.exc_info
    if given is True:
        given = sys.exc_info()
    if isinstance(given, tuple):
        given = given[1]
    return given if isinstance(given, BaseException) else None


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else str(value)


def _named(service: str) -> Any:
    def add(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return add


def _renderer(log_format: str) -> Sequence[Any]:
    if log_format == "console":
        return (structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),)
    return (
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_dumps),
    )


def _dumps(value: Any, **options: Any) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
