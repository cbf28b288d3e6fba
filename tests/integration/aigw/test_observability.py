"""One trace through the gateway, the access log on disk, and identities in it."""

import json

import pytest
from chassis.testing import recording_telemetry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def _tree(spans):
    """Names of the spans from the server span down, each the child of the one before."""
    by_parent = {f"{span.parent.span_id:016x}" if span.parent else "": span for span in spans}
    names, current = [], "b7ad6b7169203331"
    while current in by_parent:
        span = by_parent[current]
        names.append(span)
        current = f"{span.context.span_id:016x}"
    return names


@pytest.fixture
async def traced(start_gateway, aigw_settings, start_replica):
    telemetry, recorder = recording_telemetry("aigw")
    replica = await start_replica("a")
    async with start_gateway(aigw_settings, telemetry) as gateway:
        await gateway.route(("1", 1))
        await gateway.register(replica)
        recorder.clear()
        yield gateway, replica, recorder


async def test_a_sampled_call_is_one_line_of_descent_from_caller_to_replica(traced) -> None:
    gateway, replica, recorder = traced
    await gateway.infer(metadata=(("traceparent", PARENT),))
    server, route, client = _tree(recorder.spans)
    assert server.name == "inference.GRPCInferenceService/ModelInfer"
    assert route.name == "route"
    assert dict(route.attributes) == {
        "penstock.model": "digits/classifier",
        "penstock.version": "1",
        "penstock.endpoint": "a",
        "penstock.attempt": 1,
        "penstock.version.asked": "",
    }
    assert {f"{span.context.trace_id:032x}" for span in (server, route, client)} == {TRACE}
    assert replica.seen[0][0]["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"

    recorder.clear()
    async with gateway.http.post(
        gateway.url + "/v2/models/digits/classifier/infer", json={}, headers={"traceparent": PARENT}
    ) as response:
        assert response.status == 200
    server, route, client = _tree(recorder.spans)
    assert (server.name, route.name) == ("POST /v2/models/{project}/{model}/infer", "route")
    assert replica.headers[0]["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"


async def test_each_attempt_has_a_span_of_its_own(traced, start_replica) -> None:
    gateway, _, recorder = traced
    dead = await start_replica("0")
    dead.grpc_address = "127.0.0.1:1"
    await gateway.register(dead)
    recorder.clear()
    for _ in range(2):
        await gateway.infer(metadata=(("traceparent", PARENT),))
    attempts = [
        (span.attributes["penstock.endpoint"], span.attributes["penstock.attempt"], span.status.is_ok)
        for span in recorder.spans
        if span.name == "route"
    ]
    assert ("0", 1, False) in attempts
    assert ("a", 2, True) in attempts


async def test_an_unsampled_call_makes_no_span_and_passes_its_context_on(traced) -> None:
    gateway, replica, recorder = traced
    await gateway.infer(metadata=(("traceparent", UNSAMPLED),))
    async with gateway.http.post(
        gateway.url + "/v2/models/digits/classifier/infer", json={}, headers={"traceparent": UNSAMPLED}
    ) as response:
        assert response.status == 200
    assert recorder.spans == ()
    for told in (replica.seen[0][0]["traceparent"], replica.headers[0]["traceparent"]):
        assert told.startswith(f"00-{TRACE}-")
        assert told.endswith("-00")


async def test_without_tracing_the_context_still_passes_through(running_gateway, start_replica) -> None:
    replica = await start_replica("a")
    await running_gateway.route(("1", 1))
    await running_gateway.register(replica)
    await running_gateway.infer(metadata=(("traceparent", PARENT),))
    async with running_gateway.http.post(
        running_gateway.url + "/v2/models/digits/classifier/infer", json={}, headers={"traceparent": PARENT}
    ):
        pass
    assert replica.seen[0][0]["traceparent"] == PARENT
    assert replica.headers[0]["traceparent"] == PARENT


async def test_the_access_log_has_a_line_per_call_with_trace_and_identity(
    start_gateway, aigw_settings, start_replica, rpc_failure, tmp_path
) -> None:
    telemetry, _ = recording_telemetry("aigw")
    tokens = aigw_settings.auth.model_copy(update={"tokens": __import__("pydantic").SecretStr("ann:s3cret")})
    settings = aigw_settings.model_copy(update={"auth": tokens})
    credentials = (("authorization", "Bearer s3cret"),)
    async with start_gateway(settings, telemetry) as gateway:
        assert (await rpc_failure(gateway.infer())).code().name == "UNAUTHENTICATED"
        gateway.service.channel  # noqa: B018 - the control plane is called with credentials below
        await _set_up(gateway, await start_replica("a"), credentials)
        await gateway.infer(metadata=(*credentials, ("traceparent", PARENT)))
        async with gateway.http.post(
            gateway.url + "/v2/models/digits/classifier/infer",
            json={},
            headers={"authorization": "Bearer s3cret"},
        ) as response:
            assert response.status == 200
        await rpc_failure(gateway.infer("9", metadata=credentials))
    text = (tmp_path / "access.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(x["protocol"], x["code"], x["endpoint"], x["identity"]) for x in lines] == [
        ("grpc", "OK", "a", "ann"),
        ("rest", "OK", "a", "ann"),
        ("grpc", "NOT_FOUND", "", "ann"),
    ]
    assert lines[0]["trace_id"] == TRACE
    assert lines[0]["latency_ms"] > 0
    assert "s3cret" not in text


async def _set_up(gateway, replica, credentials) -> None:
    from penstock.aigw.v1 import endpoint_service_pb2, route_pb2, route_service_pb2

    await gateway.routes.CreateRoute(
        route_service_pb2.CreateRouteRequest(
            parent="projects/digits",
            route_id="classifier",
            route=route_pb2.Route(targets=[route_pb2.Target(version="1", weight=1)]),
        ),
        metadata=credentials,
    )
    await gateway.endpoints.RegisterEndpoint(
        endpoint_service_pb2.RegisterEndpointRequest(
            parent="projects/digits/models/classifier",
            endpoint_id="a",
            endpoint=endpoint_service_pb2.Endpoint(
                version="1", grpc_address=replica.grpc_address, http_address=replica.http_address
            ),
        ),
        metadata=credentials,
    )
