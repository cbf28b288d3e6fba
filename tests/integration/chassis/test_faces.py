"""A running service on both faces: what every service has, and how calls fail."""

import asyncio
import contextlib

import grpc
import httpx
import pytest
from chassis import errors, status
from chassis.settings import LimitsSettings, ServiceSettings
from chassis.testing import RunningService, running
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc

NAME = "projects/p/models/m/endpoints/"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def endpoints(service: RunningService):
    return endpoint_service_pb2_grpc.EndpointServiceStub(service.channel)


async def failure(call) -> errors.Error:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.from_rpc_error(caught.value)


async def test_health_tells_each_service(echo: RunningService) -> None:
    stub = health_pb2_grpc.HealthStub(echo.channel)
    for service in ("", "test.v1.Echo", "penstock.aigw.v1.EndpointService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING
    assert isinstance(await failure(stub.Check(health_pb2.HealthCheckRequest(service="x"))), errors.NotFound)


async def test_health_watchers_and_readiness_follow_what_the_service_says(
    echo: RunningService, http: httpx.AsyncClient
) -> None:
    stub = health_pb2_grpc.HealthStub(echo.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="test.v1.Echo"))
    assert (await watch.read()).status == SERVING
    assert (await http.get("/readyz")).status_code == 200
    echo.host.set_serving("test.v1.Echo", False)
    assert (await asyncio.wait_for(watch.read(), 5)).status == NOT_SERVING
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not serving: test.v1.Echo\n")
    assert (await http.get("/healthz")).status_code == 200
    watch.cancel()


async def test_reflection_lists_and_describes_the_services(echo: RunningService) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(echo.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="penstock.aigw.v1.EndpointService"),
    ]
    listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"test.v1.Echo", "google.longrunning.Operations", "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


async def test_channelz_sees_the_server(echo: RunningService) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(echo.channel)
    assert (await stub.GetServers(channelz_pb2.GetServersRequest())).server


async def test_both_faces_serve_the_same_operation(echo: RunningService, http: httpx.AsyncClient) -> None:
    stub = operations_pb2_grpc.OperationsStub(echo.channel)
    listed = await stub.ListOperations(operations_pb2.ListOperationsRequest(name="operations"))
    name = listed.operations[0].name
    done = await stub.WaitOperation(operations_pb2.WaitOperationRequest(name=name))
    assert done.done
    assert (await http.get(f"/v1/{name}")).json()["done"] is True
    assert (await http.post(f"/v1/{name}:cancel", json={})).status_code == 200
    assert (await http.delete(f"/v1/{name}")).status_code == 200
    assert (await http.get(f"/v1/{name}")).status_code == 404


FAILURES = [
    (NAME + "missing", errors.NotFound, "ENDPOINT_UNKNOWN", "no such endpoint"),
    (NAME + "crash", errors.Internal, "INTERNAL", "internal error"),
    ("nonsense", errors.InvalidArgument, "REQUEST_INVALID", "the request is not valid: name: "),
]


@pytest.mark.parametrize(("name", "kind", "reason", "text"), FAILURES, ids=lambda v: str(v)[-20:])
async def test_control_plane_failures_are_the_same_on_both_faces(
    echo: RunningService, http: httpx.AsyncClient, name: str, kind: type[errors.Error], reason: str, text: str
) -> None:
    error = await failure(endpoints(echo).GetEndpoint(pb.GetEndpointRequest(name=name)))
    assert type(error) is kind
    assert error.reason == reason
    assert error.message.startswith(text)
    assert "secret" not in repr(error.details)
    if name == "nonsense":
        assert [v.field for v in error.violations] == ["name"]
        return
    answer = await http.get(f"/v1/{name}")
    body = answer.json()
    assert answer.status_code == kind.code.http_status
    assert (body["code"], body["message"]) == (kind.code.value, error.message)
    info = next(d for d in body["details"] if d["@type"].endswith("ErrorInfo"))
    assert (info["reason"], info["domain"]) == (reason, "penstock.dev")


async def test_violations_name_nested_fields_as_the_contract_does(
    echo: RunningService, http: httpx.AsyncClient
) -> None:
    request = pb.RegisterEndpointRequest(parent="projects/p/models/m", endpoint_id="e")
    request.endpoint.version = "1"
    request.endpoint.grpc_address = "nowhere"
    request.endpoint.labels[""] = "x"
    error = await failure(endpoints(echo).RegisterEndpoint(request))
    fields = {v.field for v in error.violations}
    assert "endpoint.grpc_address" in fields
    assert 'endpoint.labels[""]' in fields
    answer = await http.post(
        "/v1/projects/p/models/m/endpoints:register",
        json={"endpointId": "e", "endpoint": {"version": "1", "grpcAddress": "nowhere"}},
    )
    assert answer.status_code == 400
    bad = next(d for d in answer.json()["details"] if d["@type"].endswith("BadRequest"))
    assert [v["field"] for v in bad["fieldViolations"]] == ["endpoint.grpc_address"]


async def test_streams_fail_after_what_came_before(echo: RunningService) -> None:
    for token, kind in (("fail", errors.OutOfRange), ("crash", errors.Internal)):
        call = endpoints(echo).WatchEndpoints(
            pb.WatchEndpointsRequest(parent="projects/-/models/-", resume_token=token)
        )
        assert (await call.read()).resume_token == "1"
        assert type(await failure(call.read())) is kind


async def test_a_method_of_the_contract_that_is_not_implemented_says_so(echo: RunningService) -> None:
    error = await failure(endpoints(echo).DrainEndpoint(pb.DrainEndpointRequest(name=NAME + "x")))
    assert type(error) in (errors.Unimplemented, errors.Internal)
    assert type(error) is errors.Unimplemented


async def test_an_unknown_method_is_named(echo: RunningService) -> None:
    error = await failure(echo.channel.unary_unary("/no.such.Service/Method")(b""))
    assert isinstance(error, errors.Unimplemented)
    assert "/no.such.Service/Method" in error.message
    assert error.reason == "METHOD_NOT_FOUND"


async def test_a_call_without_a_deadline_gets_the_default_one(echo_service) -> None:
    settings = ServiceSettings(limits=LimitsSettings(default_deadline=0.1))
    async with running(settings, echo_service.build) as service:
        error = await failure(endpoints(service).GetEndpoint(pb.GetEndpointRequest(name=NAME + "hang")))
        assert isinstance(error, errors.DeadlineExceeded)
        assert error.reason == "DEFAULT_DEADLINE_EXCEEDED"


async def test_the_caller_s_own_deadline_reaches_the_servicer(echo: RunningService) -> None:
    answer = await endpoints(echo).GetEndpoint(pb.GetEndpointRequest(name=NAME + "deadline"), timeout=50)
    assert 40 < float(answer.version) <= 51
    error = await failure(endpoints(echo).GetEndpoint(pb.GetEndpointRequest(name=NAME + "hang"), timeout=0.1))
    assert isinstance(error, errors.DeadlineExceeded)


async def test_the_data_path_answers_and_fails_with_details(echo: RunningService) -> None:
    call = echo.channel.unary_unary("/test.v1.Echo/Unary")
    assert await call(b"hello") == b"hello"
    error = await failure(call(b"fail"))
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.retry_after) == ("NOT_NOW", 1.0)
    stream = echo.channel.stream_stream("/test.v1.Echo/Stream")(iter([b"a", b"b"]))
    assert [answer async for answer in stream] == [b"a", b"b"]


async def test_own_http_routes_fail_with_the_same_bodies(http: httpx.AsyncClient) -> None:
    known = await http.get("/fail/known")
    assert (known.status_code, known.headers["retry-after"]) == (429, "3")
    assert known.json()["details"][0]["reason"] == "RATE"
    crash = await http.get("/fail/unknown")
    assert (crash.status_code, crash.json()["message"]) == (500, "internal error")
    assert "secret" not in crash.text


async def test_paths_that_are_not_served_get_status_bodies(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/nothing/here")
    assert (answer.status_code, answer.json()["code"]) == (404, 5)


@pytest.mark.parametrize("head", ["GET /{} HTTP/1.1\r\nhost: a", "GET / HTTP/1.1\r\nhost: a\r\nx-big: {}"])
async def test_a_request_whose_head_has_no_end_is_cut_off(echo: RunningService, head: str) -> None:
    host, _, port = echo.host.rest_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.format("x" * 2_000_000).encode())  # and nothing that would end it
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 ")
    except ConnectionResetError:
        pass  # hung up on before all was read, so the answer is lost
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_a_head_of_ordinary_size_is_taken(http: httpx.AsyncClient) -> None:
    for _ in range(10):
        assert (await http.get("/readyz", headers={"x-big": "x" * 10_000})).status_code == 200


async def test_documentation_is_served(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/operations", "/count"} <= set(document["paths"])
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]


async def test_metrics_count_calls_by_method_and_code(echo: RunningService, http: httpx.AsyncClient) -> None:
    call = echo.channel.unary_unary("/test.v1.Echo/Unary")
    await call(b"hello")
    await failure(call(b"fail"))
    await failure(endpoints(echo).GetEndpoint(pb.GetEndpointRequest(name="nonsense")))
    await http.get("/who")
    text = (await http.get("/metrics")).text

    def count(metric: str, **labels: str) -> str:
        wanted = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        return next(
            (line.split()[-1] for line in text.splitlines() if line.startswith(f"{metric}{{{wanted}}}")),
            "none",
        )

    rpc = "rpc_server_call_duration_seconds_count"
    unary = "test.v1.Echo/Unary"
    get = "penstock.aigw.v1.EndpointService/GetEndpoint"
    assert count(rpc, rpc_method=unary, rpc_response_status_code="OK") == "1.0"
    assert count(rpc, rpc_method=unary, rpc_response_status_code="UNAVAILABLE") == "1.0"
    assert count(rpc, rpc_method=get, rpc_response_status_code="INVALID_ARGUMENT") == "1.0"
    assert count("rpc_server_active_requests", rpc_method=unary) == "0.0"
    http_count = "http_server_request_duration_seconds_count"
    assert (
        count(http_count, http_request_method="GET", http_response_status_code="200", http_route="/who")
        == "1.0"
    )


async def test_a_scraper_gets_the_format_it_asks_for(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_too_large_a_message_is_refused(echo_service) -> None:
    settings = ServiceSettings(limits=LimitsSettings(max_message_bytes=1000))
    async with running(settings, echo_service.build) as service:
        call = service.channel.unary_unary("/test.v1.Echo/Unary")
        assert isinstance(await failure(call(b"x" * 2000)), errors.ResourceExhausted)
        assert await call(b"x" * 500)


async def test_a_body_beyond_the_limit_is_refused_on_every_route(echo_service) -> None:
    settings = ServiceSettings(limits=LimitsSettings(max_body_bytes=1000))

    async def chunks(count: int):
        for _ in range(count):
            yield b"x" * 100

    async with (
        running(settings, echo_service.build) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        for path in ("/count", "/v1/operations/a:cancel"):
            for body in (b"x" * 1001, chunks(11)):
                answer = await client.post(path, content=body, headers={"content-type": "application/json"})
                said = answer.json()
                assert (answer.status_code, said["code"]) == (413, 8), path
                assert (said["details"][0]["reason"], "1000 bytes" in said["message"]) == (
                    "BODY_TOO_LARGE",
                    True,
                )
        for body in (b"x" * 1000, chunks(10)):
            answer = await client.post("/count", content=body)
            assert answer.json() == {"bytes": 1000}
