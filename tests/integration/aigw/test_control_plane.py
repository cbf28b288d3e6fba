"""The control plane over gRPC and REST, and the registry through the chassis's own client."""

import asyncio
import contextlib

import grpc
import pytest
from chassis.registry.embedded import EmbeddedRegistry
from chassis.registry.port import Endpoint, EventKind
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2, status_pb2
from penstock.aigw.v1 import (
    job_service_pb2,
    job_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    route_pb2,
    route_service_pb2,
    route_service_pb2_grpc,
    traffic_service_pb2,
)

ROUTE = "projects/digits/routes/classifier"


def _details(error: grpc.aio.AioRpcError) -> tuple[str, list[str]]:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    return info.reason, [violation.field for violation in bad.field_violations]


async def test_routes_live_by_etag_and_mask_over_grpc_and_rest(running_gateway, rpc_failure) -> None:
    gateway, url = running_gateway, running_gateway.url + "/v1/"
    made = await gateway.route(("1", 1))
    assert (await rpc_failure(gateway.route(("1", 1)))).code() is grpc.StatusCode.ALREADY_EXISTS

    async with gateway.http.post(
        f"{url}{ROUTE}:setWeights",
        json={
            "weights": [{"version": "1", "weight": 90}, {"version": "2", "weight": 10}],
            "etag": made.etag,
            "reason": "trial",
        },
    ) as response:
        moved = await response.json()
        assert (response.status, moved["generation"]) == (200, "2")
    error = await rpc_failure(
        gateway.routes.SetWeights(
            route_service_pb2.SetWeightsRequest(
                name=ROUTE,
                weights=[route_service_pb2.VersionWeight(version="1", weight=1)],
                etag=made.etag,
            )
        )
    )
    assert (error.code(), _details(error)[0]) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")

    async with gateway.http.patch(
        f"{url}{ROUTE}?updateMask=policy.timeout", json={"policy": {"timeout": "2.500s"}}
    ) as response:
        patched = await response.json()
        assert (response.status, patched.get("policy")) == (200, {"timeout": "2.500s"}), patched
    async with gateway.http.get(f"{url}{ROUTE}/snapshots") as response:
        history = [
            (s["route"]["generation"], s.get("reason")) for s in (await response.json())["routeSnapshots"]
        ]
        assert history == [("3", None), ("2", "trial"), ("1", None)]
    async with gateway.http.get(f"{url}projects/-/routes") as response:
        assert [route["name"] for route in (await response.json())["routes"]] == [ROUTE]
    async with gateway.http.delete(f"{url}{ROUTE}") as response:
        assert response.status == 200
    error = await rpc_failure(gateway.routes.GetRoute(route_service_pb2.GetRouteRequest(name=ROUTE)))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def refusals(running_gateway, rpc_failure):
    """Each declaration, and the code, reason and fields of its refusal."""

    async def refuse(route: route_pb2.Route) -> tuple[str, str, list[str]]:
        request = route_service_pb2.CreateRouteRequest(parent="projects/p", route_id="m", route=route)
        error = await rpc_failure(running_gateway.routes.CreateRoute(request))
        return error.code().name, *_details(error)

    return refuse


async def test_an_invalid_declaration_is_refused_with_its_field(refusals) -> None:
    target = route_pb2.Target
    zero = route_pb2.Route(targets=[target(version="1"), target(version="2")])
    assert await refusals(zero) == ("INVALID_ARGUMENT", "ROUTE_INVALID", ["route.targets"])
    twice = route_pb2.Route(targets=[target(version="1", weight=1), target(version="1", weight=1)])
    assert await refusals(twice) == ("INVALID_ARGUMENT", "ROUTE_INVALID", ["route.targets[1].version"])
    code, _, fields = await refusals(route_pb2.Route(targets=[target(version="no spaces", weight=-1)]))
    assert code == "INVALID_ARGUMENT"
    assert set(fields) == {"route.targets[0].version", "route.targets[0].weight"}
    mirrored = route_pb2.Route(
        targets=[target(version="1", weight=1)], mirrors=[route_pb2.Mirror(version="2", percent=5)]
    )
    assert await refusals(mirrored) == ("UNIMPLEMENTED", "NOT_AVAILABLE", ["route.mirrors"])


async def test_what_is_not_in_this_version_says_so(running_gateway, rpc_failure) -> None:
    channel = running_gateway.service.channel
    jobs = job_service_pb2_grpc.JobServiceStub(channel)
    keys = key_service_pb2_grpc.KeyServiceStub(channel)
    traffic = running_gateway.traffic
    job, key, anomaly = "projects/p/jobs/j", "projects/p/keys/k", "projects/p/anomalies/a"
    calls = [
        jobs.CreateJob(
            job_service_pb2.CreateJobRequest(
                parent="projects/p", job=job_service_pb2.Job(route="projects/p/routes/m", request=b"x")
            )
        ),
        jobs.GetJob(job_service_pb2.GetJobRequest(name=job)),
        jobs.ListJobs(job_service_pb2.ListJobsRequest(parent="projects/p")),
        jobs.WaitJob(job_service_pb2.WaitJobRequest(name=job)),
        jobs.FetchJobResult(job_service_pb2.FetchJobResultRequest(name=job)),
        jobs.CancelJob(job_service_pb2.CancelJobRequest(name=job)),
        jobs.DeleteJob(job_service_pb2.DeleteJobRequest(name=job)),
        keys.CreateKey(key_service_pb2.CreateKeyRequest(parent="projects/p", key=key_service_pb2.Key())),
        keys.GetKey(key_service_pb2.GetKeyRequest(name=key)),
        keys.ListKeys(key_service_pb2.ListKeysRequest(parent="projects/p")),
        keys.UpdateKey(key_service_pb2.UpdateKeyRequest(key=key_service_pb2.Key(name=key))),
        keys.RotateKey(key_service_pb2.RotateKeyRequest(name=key)),
        keys.RevokeKey(key_service_pb2.RevokeKeyRequest(name=key)),
        keys.DeleteKey(key_service_pb2.DeleteKeyRequest(name=key)),
        traffic.QueryAccessLog(traffic_service_pb2.QueryAccessLogRequest(parent="projects/p")),
        traffic.GetMirrorReport(
            traffic_service_pb2.GetMirrorReportRequest(name="projects/p/routes/m/mirrorReports/1")
        ),
        traffic.ListAnomalies(traffic_service_pb2.ListAnomaliesRequest(parent="projects/p")),
        traffic.GetAnomaly(traffic_service_pb2.GetAnomalyRequest(name=anomaly)),
        traffic.AcknowledgeAnomaly(traffic_service_pb2.AcknowledgeAnomalyRequest(name=anomaly)),
    ]
    for call in calls:
        error = await rpc_failure(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "not available in this version of Penstock" in error.details()


async def test_replicas_register_and_are_watched_through_the_chassis(running_gateway, start_replica) -> None:
    replica = await start_replica("a")
    registry = EmbeddedRegistry(running_gateway.service.channel)
    endpoint = Endpoint(
        "digits", "classifier", "1", "a", replica.grpc_address, replica.http_address, labels={"zone": "x"}
    )
    await running_gateway.route(("1", 1))
    lease = await registry.register(endpoint, 30.0)
    assert (await running_gateway.infer()).id == "a"
    assert (await registry.renew(lease)).id == lease.id

    watch = registry.watch(project="digits")
    seen = [await anext(watch) for _ in range(3)]
    assert [event.kind for event in seen] == [EventKind.RESET, EventKind.PUT, EventKind.SYNCED]
    assert seen[1].endpoint == endpoint
    await registry.deregister(lease)
    assert (await anext(watch)).kind is EventKind.REMOVED
    await watch.aclose()
    forgotten = registry.watch(project="digits", resume_token="another-gateway.7")
    again = [(await anext(forgotten)).kind for _ in range(2)]
    assert again == [EventKind.RESET, EventKind.SYNCED]
    await forgotten.aclose()


async def test_a_watch_of_routes_tells_what_is_observed(running_gateway, start_replica) -> None:
    await running_gateway.route(("1", 1))
    watch = running_gateway.routes.WatchRoutes(route_service_pb2.WatchRoutesRequest(parent="projects/digits"))
    first = await watch.read()
    assert (first.route.name, first.route.observed_targets[0].ready_endpoints) == (ROUTE, 0)
    assert (await watch.read()).type == route_service_pb2.ROUTE_EVENT_TYPE_SYNCED
    await running_gateway.register(await start_replica("a"))
    assert (await watch.read()).route.observed_targets[0].ready_endpoints == 1
    watch.cancel()


async def test_a_gateway_with_watchers_stops_at_once(start_gateway, aigw_settings, rpc_failure) -> None:
    async with asyncio.timeout(10), contextlib.AsyncExitStack() as stack:
        async with start_gateway(aigw_settings) as gateway:
            address = gateway.service.grpc_address
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            stub = route_service_pb2_grpc.RouteServiceStub(channel)
            watch = stub.WatchRoutes(route_service_pb2.WatchRoutesRequest(parent="projects/-"))
            await watch.read()
        error = await rpc_failure(watch.read())
    assert (error.code(), _details(error)[0]) == (grpc.StatusCode.UNAVAILABLE, "GATEWAY_STOPPING")


async def test_traffic_tells_requests_errors_and_latency_per_version(
    running_gateway, start_replica, rpc_failure
) -> None:
    await running_gateway.route(("1", 3), ("2", 1))
    for name, version in (("a", "1"), ("b", "2")):
        await running_gateway.register(await start_replica(name, version))
    for _ in range(20):
        await running_gateway.infer()
    for _ in range(4):
        await running_gateway.infer_rest()
    await rpc_failure(running_gateway.infer("2", id="abort:INTERNAL"))
    await rpc_failure(running_gateway.infer("7"))
    request = traffic_service_pb2.QueryTrafficRequest(route=ROUTE)
    request.step.FromSeconds(60)
    answer = await running_gateway.traffic.QueryTraffic(request)
    found = {series.version: series.total for series in answer.series}
    assert {v: (t.requests, t.errors) for v, t in found.items()} == {"": (1, 0), "1": (18, 0), "2": (7, 1)}
    assert 0 < found["1"].latency.p50.ToMicroseconds() <= found["1"].latency.max.ToMicroseconds()
    assert sum(point.statistics.requests for point in answer.series[1].points) == 18


async def test_an_update_may_create(running_gateway) -> None:
    request = route_service_pb2.UpdateRouteRequest(
        route=route_pb2.Route(name=ROUTE, targets=[route_pb2.Target(version="1", weight=1)]),
        update_mask=field_mask_pb2.FieldMask(paths=["targets"]),
        allow_missing=True,
        reason="first",
    )
    assert (await running_gateway.routes.UpdateRoute(request)).generation == 1
    assert (await running_gateway.routes.UpdateRoute(request)).generation == 1
