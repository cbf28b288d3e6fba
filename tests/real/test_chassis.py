"""The chassis against real servers: operations in PostgreSQL, a service's trace in the collector."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import grpc
import pytest
from chassis.bootstrap import Host
from chassis.operations import OperationStore
from chassis.operations.sql import SqlOperationStore
from chassis.settings import ServiceSettings, TelemetrySettings
from chassis.testing import running
from chassis.transport.port import Call, DataPath

from tests.contract.chassis.test_operation_stores import (
    test_a_name_is_taken_once,
    test_a_write_based_on_an_old_revision_is_refused,
    test_deleting_says_whether_there_was_something,
    test_every_field_is_kept,
    test_lists_are_narrowed,
    test_lists_are_newest_first_and_continue_after_a_position,
)
from tests.real.servers.jaeger import Jaeger
from tests.real.waiting import until

__all__ = [
    "test_a_name_is_taken_once",
    "test_a_write_based_on_an_old_revision_is_refused",
    "test_deleting_says_whether_there_was_something",
    "test_every_field_is_kept",
    "test_lists_are_narrowed",
    "test_lists_are_newest_first_and_continue_after_a_position",
]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[OperationStore]:
    """The store that the contract's tests get here."""
    async with SqlOperationStore.open(
        database_url.replace("postgresql://", "postgresql+asyncpg://")
    ) as opened:
        yield opened


async def test_a_service_s_spans_arrive_at_the_collector(jaeger: Jaeger) -> None:
    service = f"test-{uuid.uuid4().hex[:12]}"

    async def build(host: Host, settings: ServiceSettings) -> None:
        async def echo(call: Call, payload: bytes) -> bytes:
            with host.telemetry.tracer.start_as_current_span("work"):
                return payload

        host.add_data_path(DataPath(unary={"/test.v1.Echo/Unary": echo}), services=["test.v1.Echo"])

    settings = ServiceSettings(telemetry=TelemetrySettings(exporter="otlp", endpoint=jaeger.otlp_endpoint))
    trace_id = uuid.uuid4().hex
    async with running(settings, build, name=service) as running_service:
        call = running_service.channel.unary_unary("/test.v1.Echo/Unary")
        await call(b"x", metadata=grpc.aio.Metadata(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")))

    async def stored() -> list[dict[str, object]]:
        spans = await asyncio.to_thread(jaeger.trace, trace_id)
        return spans if len(spans) == 2 else []

    by_name = {str(span["operationName"]): span for span in await until(stored)}
    assert set(by_name) == {"test.v1.Echo/Unary", "work"}
