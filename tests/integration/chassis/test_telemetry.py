"""One trace across services and faces, and a real OTLP collector at the end of it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import grpc
import httpx
import pytest
from chassis.bootstrap import Host
from chassis.channel import open_channel
from chassis.settings import ChannelSettings, ServiceSettings, TelemetrySettings
from chassis.telemetry import Telemetry
from chassis.testing import RunningService, SpanRecorder, recording_telemetry, running
from chassis.transport.grpcio import GrpcConnector
from chassis.transport.port import Call, DataPath
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc
from pydantic import SecretStr

UNARY, STREAM = "/test.v1.Echo/Unary", "/test.v1.Echo/Stream"
NAME = "projects/p/models/m/endpoints/"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "00"


async def gateway(backend: RunningService, telemetry: Telemetry):
    """A service that forwards to the echo service, as a gateway does."""

    async def build(host: Host, settings: ServiceSettings) -> None:
        upstream = GrpcConnector(telemetry=host.telemetry).connect(backend.grpc_address)
        host.on_drain(upstream.close)

        async def unary(call: Call, payload: bytes) -> bytes:
            reply = await upstream.unary(call.method, payload, metadata=call.metadata, deadline=call.deadline)
            return reply.payload

        async def stream(call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for answer in upstream.stream(call.method, payloads, metadata=call.metadata):
                yield answer

        host.add_data_path(DataPath(unary={UNARY: unary}, stream={STREAM: stream}), services=["test.v1.Echo"])

    return build


async def chain(echo_service, ratio: float = 1.0):
    recorder = SpanRecorder()
    return recorder, *(
        recording_telemetry(name, recorder=recorder, sample_ratio=ratio)[0] for name in ("front", "back")
    )


async def test_a_trace_goes_through_a_gateway_to_the_backend(echo_service) -> None:
    recorder, front, back = await chain(echo_service)
    async with (
        running(ServiceSettings(), echo_service.build, telemetry=back) as backend,
        running(ServiceSettings(), await gateway(backend, front), telemetry=front) as service,
    ):
        call = service.channel.unary_unary(UNARY)
        await call(b"hello", metadata=(("traceparent", SAMPLED), ("tracestate", "vendor=1")))
    in_back, client, in_front = recorder.spans
    assert [s.kind.name for s in (in_front, client, in_back)] == ["SERVER", "CLIENT", "SERVER"]
    assert f"{in_front.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{in_front.parent.span_id:016x}" == "b7ad6b7169203331"
    assert client.parent.span_id == in_front.context.span_id
    assert in_back.parent.span_id == client.context.span_id
    assert {s.context.trace_id for s in recorder.spans} == {in_front.context.trace_id}
    assert in_back.name == "test.v1.Echo/Unary"
    assert in_back.attributes["rpc.response.status_code"] == "OK"
    assert in_front.resource.attributes["service.name"] == "front"
    assert in_back.resource.attributes["service.name"] == "back"


async def test_a_streamed_call_is_one_trace_too(echo_service) -> None:
    recorder, front, back = await chain(echo_service)
    async with (
        running(ServiceSettings(), echo_service.build, telemetry=back) as backend,
        running(ServiceSettings(), await gateway(backend, front), telemetry=front) as service,
    ):
        stream = service.channel.stream_stream(STREAM)(iter([b"a", b"b"]))
        assert [answer async for answer in stream] == [b"a", b"b"]
    in_front = next(s for s in recorder.spans if s.parent is None)
    client = next(s for s in recorder.spans if s.kind.name == "CLIENT")
    in_back = next(s for s in recorder.spans if s.parent and s.parent.span_id == client.context.span_id)
    assert client.parent.span_id == in_front.context.span_id
    assert in_back.resource.attributes["service.name"] == "back"


async def test_what_the_caller_does_not_record_nobody_records_and_its_context_travels(echo_service) -> None:
    recorder, front, back = await chain(echo_service)
    async with (
        running(ServiceSettings(), echo_service.build, telemetry=back) as backend,
        running(ServiceSettings(), await gateway(backend, front), telemetry=front) as service,
    ):
        seen = await service.channel.unary_unary(UNARY)(
            b"metadata traceparent", metadata=(("traceparent", UNSAMPLED),)
        )
    assert seen.decode() == UNSAMPLED
    assert recorder.spans == ()


async def test_a_trace_that_the_first_service_drops_is_dropped_by_the_next(echo_service) -> None:
    recorder = SpanRecorder()
    front, _ = recording_telemetry("front", recorder=recorder, sample_ratio=0.0)
    back, _ = recording_telemetry("back", recorder=recorder, sample_ratio=1.0)
    async with (
        running(ServiceSettings(), echo_service.build, telemetry=back) as backend,
        running(ServiceSettings(), await gateway(backend, front), telemetry=front) as service,
    ):
        seen = await service.channel.unary_unary(UNARY)(b"metadata traceparent")
    assert int(seen[-2:], 16) & 1 == 0
    assert recorder.spans == ()


async def test_switched_off_the_context_still_passes_through(echo_service) -> None:
    async with (
        running(ServiceSettings(), echo_service.build) as backend,
        running(ServiceSettings(), await gateway(backend, Telemetry("front", "0"))) as service,
    ):
        seen = await service.channel.unary_unary(UNARY)(
            b"metadata traceparent", metadata=(("traceparent", SAMPLED),)
        )
    assert seen.decode() == SAMPLED


async def test_control_plane_calls_have_spans_with_their_outcome(echo_service) -> None:
    telemetry, recorder = recording_telemetry()
    client, _ = recording_telemetry("client", recorder=recorder)
    async with running(ServiceSettings(), echo_service.build, telemetry=telemetry) as service:
        settings = ChannelSettings(address=service.grpc_address)
        async with open_channel(settings, client) as channel:
            stub = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
            with client.tracer.start_as_current_span("command"):
                for name in ("ok", "missing", "crash"):
                    with pytest.raises(grpc.aio.AioRpcError) if name != "ok" else nullcontext():
                        await stub.GetEndpoint(pb.GetEndpointRequest(name=NAME + name))
            watched = stub.WatchEndpoints(pb.WatchEndpointsRequest(parent="projects/-/models/-"))
            assert len([event async for event in watched]) == 2
    command = recorder.named("command")
    servers = [s for s in recorder.spans if s.kind.name == "SERVER" and "GetEndpoint" in s.name]
    clients = {s.context.span_id: s for s in recorder.spans if s.kind.name == "CLIENT"}
    outcomes = [(s.attributes["rpc.response.status_code"], s.status.status_code.name) for s in servers]
    assert outcomes == [("OK", "UNSET"), ("NOT_FOUND", "UNSET"), ("INTERNAL", "ERROR")]
    for server in servers:
        assert clients[server.parent.span_id].parent.span_id == command.context.span_id
    codes = [s.attributes["rpc.response.status_code"] for s in clients.values() if "GetEndpoint" in s.name]
    assert codes == ["OK", "NOT_FOUND", "INTERNAL"]
    assert any("WatchEndpoints" in s.name for s in clients.values())


async def test_a_rest_request_is_the_parent_of_the_call_it_makes(echo_service) -> None:
    telemetry, recorder = recording_telemetry()
    async with (
        running(ServiceSettings(), echo_service.build, telemetry=telemetry) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as http,
    ):
        await http.get(f"/v1/{NAME}ok", headers={"traceparent": SAMPLED})
        await http.get("/who")
        await http.get("/metrics")
    call = recorder.named("penstock.aigw.v1.EndpointService/GetEndpoint")
    request = next(s for s in recorder.spans if s.context.span_id == call.parent.span_id)
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["url.path"] == f"/v1/{NAME}ok"
    assert recorder.named("GET /who").attributes["http.route"] == "/who"
    assert len(recorder.spans) == 3


class Collector(
    trace_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer, logs_grpc.LogsServiceServicer
):
    """The three OTLP services; what comes is kept."""

    def __init__(self) -> None:
        self.received: dict[type, list[Any]] = {}
        self.authorization: set[str] = set()

    async def Export(self, request: Any, context: Any) -> Any:
        self.received.setdefault(type(request), []).append(request)
        self.authorization.add(dict(context.invocation_metadata()).get("authorization", ""))
        answers = {
            trace_pb.ExportTraceServiceRequest: trace_pb.ExportTraceServiceResponse,
            metrics_pb.ExportMetricsServiceRequest: metrics_pb.ExportMetricsServiceResponse,
            logs_pb.ExportLogsServiceRequest: logs_pb.ExportLogsServiceResponse,
        }
        return answers[type(request)]()


async def test_traces_metrics_and_logs_arrive_at_a_collector_on_shutdown(echo_service) -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_grpc.add_MetricsServiceServicer_to_server(collector, server)
    logs_grpc.add_LogsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    handlers = list(logging.getLogger().handlers)
    settings = ServiceSettings(
        telemetry=TelemetrySettings(
            exporter="otlp",
            endpoint=f"http://127.0.0.1:{port}",
            headers={"Authorization": SecretStr("Bearer collector")},
            metrics_interval=3600,
        )
    )
    async with running(settings, echo_service.build, name="echo") as service:
        service.host.telemetry.meter.create_counter("own.counter").add(1)
        await service.channel.unary_unary(UNARY)(b"hello")
        with pytest.raises(grpc.aio.AioRpcError):
            await endpoint_service_pb2_grpc.EndpointServiceStub(service.channel).GetEndpoint(
                pb.GetEndpointRequest(name=NAME + "crash")
            )
    assert logging.getLogger().handlers == handlers
    await server.stop(None)

    traces = collector.received[trace_pb.ExportTraceServiceRequest]
    resource = traces[0].resource_spans[0].resource
    attributes = {a.key: a.value.string_value for a in resource.attributes}
    assert (attributes["service.name"], attributes["service.namespace"]) == ("echo", "penstock")
    names = {s.name for t in traces for r in t.resource_spans for sc in r.scope_spans for s in sc.spans}
    assert "test.v1.Echo/Unary" in names
    metrics = {
        m.name: m
        for request in collector.received[metrics_pb.ExportMetricsServiceRequest]
        for r in request.resource_metrics
        for scope in r.scope_metrics
        for m in scope.metrics
    }
    assert "process.uptime" in metrics
    assert "own.counter" in metrics
    points = metrics["rpc.server.call.duration"].histogram.data_points
    assert any(
        {a.key: a.value.string_value for a in p.attributes}.get("rpc.method") == "test.v1.Echo/Unary"
        for p in points
    )
    records = [
        record
        for request in collector.received[logs_pb.ExportLogsServiceRequest]
        for r in request.resource_logs
        for scope in r.scope_logs
        for record in scope.log_records
    ]
    failed = next(r for r in records if r.body.string_value == "unexpected error in a call")
    assert failed.trace_id
    assert failed.severity_text == "ERROR"
    assert "inner secret" in str(failed.attributes)
    assert collector.authorization == {"Bearer collector"}
    await asyncio.sleep(0)
