"""The collector: a span sent by OTLP comes back from a query."""

from __future__ import annotations

import asyncio
import uuid

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.real.servers.jaeger import Jaeger
from tests.real.waiting import until


async def stored(jaeger: Jaeger, trace_id: str, count: int) -> list[dict[str, object]]:
    """Return the spans of a trace once there are as many as were sent."""
    spans = await asyncio.to_thread(jaeger.trace, trace_id)
    return spans if len(spans) == count else []


async def test_a_span_sent_by_otlp_is_queried_back_with_its_parent(jaeger: Jaeger) -> None:
    service = f"test-{uuid.uuid4().hex[:12]}"
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(jaeger.otlp_endpoint, insecure=True)))
    tracer = provider.get_tracer("tests.real")
    with tracer.start_as_current_span("route") as parent, tracer.start_as_current_span("predict") as child:
        child.set_attribute("model", "digits/classifier")
    await asyncio.to_thread(provider.shutdown)
    trace_id = f"{parent.get_span_context().trace_id:032x}"
    spans = await until(lambda: stored(jaeger, trace_id, 2))
    by_name = {span["operationName"]: span for span in spans}
    assert set(by_name) == {"route", "predict"}
    assert by_name["predict"]["references"][0]["spanID"] == by_name["route"]["spanID"]
    assert {"key": "model", "type": "string", "value": "digits/classifier"} in by_name["predict"]["tags"]
