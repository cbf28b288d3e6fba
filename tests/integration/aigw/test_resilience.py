"""Replicas die, versions change, the gateway restarts: under constant load on both faces, no call fails."""

import asyncio
import time

import grpc
import pytest
from google.protobuf import duration_pb2
from penstock.aigw.v1 import endpoint_service_pb2, route_service_pb2, traffic_service_pb2

from tests.integration.aigw.load import constant_load

ROUTE = "projects/digits/routes/classifier"
MODEL = "projects/digits/models/classifier"


async def _observed(gateway):
    route = await gateway.routes.GetRoute(route_service_pb2.GetRouteRequest(name=ROUTE))
    return {target.version: target for target in route.observed_targets}


async def _until(gateway, holds) -> None:
    """Waits until what is observed of the versions is so: a replica that is put aside returns now and then
    to be tried.
    """
    async with asyncio.timeout(10):
        while not holds(await _observed(gateway)):  # noqa: ASYNC110 - another process is being looked at
            await asyncio.sleep(0.01)


async def test_kill_9_of_one_of_two_replicas_fails_no_call_and_its_successor_takes_over(
    running_gateway, spawn_replica
) -> None:
    victim, survivor = await asyncio.gather(spawn_replica("a"), spawn_replica("b"))
    await running_gateway.route(("1", 1))
    for replica in (victim, survivor):
        await running_gateway.register(replica)  # under leases that outlast the test: they are of no help
    async with constant_load(running_gateway) as load:
        await load.more(200)
        assert load.by("a") > 0
        await victim.kill()
        await load.more(300)
        await _until(running_gateway, lambda seen: seen["1"].ejected_endpoints == 1)
        before = load.by("a")
        successor = await spawn_replica("a")
        await running_gateway.register(successor)
        await load.more(200)
        assert load.by("a") > before
        assert (await _observed(running_gateway))["1"].ready_endpoints == 2
    assert load.failures == []
    traffic = await running_gateway.traffic.QueryTraffic(traffic_service_pb2.QueryTrafficRequest(route=ROUTE))
    assert [(s.version, s.total.requests, s.total.errors) for s in traffic.series] == [("1", load.count, 0)]
    assert traffic.series[0].total.retries > 0


async def test_kill_9_of_the_only_replica_of_a_version_hands_its_share_to_the_other_version(
    running_gateway, spawn_replica
) -> None:
    stable, trial = await asyncio.gather(spawn_replica("a", "1"), spawn_replica("c", "2"))
    await running_gateway.route(("1", 1), ("2", 1))
    for replica in (stable, trial):
        await running_gateway.register(replica)
    async with constant_load(running_gateway) as load:
        await load.more(100)
        await trial.kill()
        await load.more(200)
        await _until(running_gateway, lambda seen: seen["1"].share == 1.0)
    assert load.failures == []


async def test_a_change_of_version_fails_no_call(running_gateway, start_replica) -> None:
    old = [await start_replica(name, "1") for name in ("a", "b")]
    new = [await start_replica(name, "2") for name in ("c", "d")]
    await running_gateway.route(("1", 1))
    for replica in old:
        await running_gateway.register(replica)
    async with constant_load(running_gateway) as load:
        await load.more(50)
        for replica in new:
            await running_gateway.register(replica)
        for first, second in ((90, 10), (50, 50), (0, 100)):
            await running_gateway.set_weights(v1=first, v2=second)
            await load.more(100)
        before = load.by("a") + load.by("b")
        for replica in old:
            name = f"{MODEL}/endpoints/{replica.name}"
            await running_gateway.endpoints.DeregisterEndpoint(
                endpoint_service_pb2.DeregisterEndpointRequest(name=name)
            )
        await load.more(100)
        assert load.by("a") + load.by("b") <= before + 8  # those in flight when the weights moved
    assert load.failures == []
    assert (await _observed(running_gateway)).keys() == {"1", "2"}


async def test_draining_loses_no_call_in_flight(running_gateway, start_replica) -> None:
    leaving, staying = await start_replica("a"), await start_replica("b")
    await running_gateway.route(("1", 1))
    await running_gateway.register(leaving)
    slow = asyncio.create_task(running_gateway.infer(id="sleep:0.5"))
    async with asyncio.timeout(5):
        while not leaving.running:  # noqa: ASYNC110 - the replica's own count
            await asyncio.sleep(0.005)
    await running_gateway.register(staying)
    await running_gateway.endpoints.DrainEndpoint(
        endpoint_service_pb2.DrainEndpointRequest(name=f"{MODEL}/endpoints/a")
    )
    assert {(await running_gateway.infer()).id for _ in range(6)} == {"b"}
    assert (await slow).id == "a"


async def test_a_restarted_gateway_knows_routes_endpoints_and_leases(
    start_gateway, aigw_settings, start_replica
) -> None:
    replica = await start_replica("a")
    async with start_gateway(aigw_settings) as first:
        route = await first.route(("1", 1))
        lease = (await first.register(replica, ttl=5.0)).lease
    async with start_gateway(aigw_settings) as second:
        assert (await second.infer()).id == "a"
        assert (await second.infer_rest())[1]["id"] == "a"
        found = await second.routes.GetRoute(route_service_pb2.GetRouteRequest(name=ROUTE))
        assert (found.etag, found.generation, found.uid) == (route.etag, 1, route.uid)
        renewed = await second.endpoints.RenewLease(
            endpoint_service_pb2.RenewLeaseRequest(name=lease.name, lease_id=lease.lease_id)
        )
        assert renewed.ttl == duration_pb2.Duration(seconds=5)


async def test_an_endpoint_that_falls_silent_is_dropped(running_gateway, start_replica, rpc_failure) -> None:
    await running_gateway.route(("1", 1))
    await running_gateway.register(await start_replica("a"), ttl=1.0)
    assert (await running_gateway.infer()).id == "a"
    watch = running_gateway.endpoints.WatchEndpoints(
        endpoint_service_pb2.WatchEndpointsRequest(parent="projects/-/models/-")
    )
    async with asyncio.timeout(5):
        async for event in watch:
            if event.type == endpoint_service_pb2.ENDPOINT_EVENT_TYPE_REMOVED:
                break
    assert "no ready replica" in (await rpc_failure(running_gateway.infer())).details()


@pytest.mark.parametrize("face", ["grpc", "rest"])
async def test_a_dead_address_is_told_in_words(running_gateway, start_replica, rpc_failure, face) -> None:
    replica = await start_replica("a")
    replica.grpc_address = replica.http_address = "127.0.0.1:1"
    await running_gateway.route(("1", 1))
    await running_gateway.register(replica)
    if face == "grpc":
        text = (await rpc_failure(running_gateway.infer())).details()
    else:
        status, body = await running_gateway.infer_rest()
        assert status == 503
        text = body["error"]
    assert "'digits/classifier' version 1 could not be reached in 1 attempt" in text
    assert "endpoint a" in text


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.7\r\n", id="another protocol"),
        pytest.param(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 64, id="broken HTTP/2"),
    ],
)
async def test_an_endpoint_that_is_no_replica_fails_its_calls_in_time_and_leaves_nothing_in_flight(
    running_gateway, start_replica, rpc_failure, says: bytes
) -> None:
    writers = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(says)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        replica = await start_replica("a")
        replica.grpc_address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await running_gateway.route(("1", 1))
        await running_gateway.register(replica)
        began = time.monotonic()
        failed = await asyncio.gather(*(rpc_failure(running_gateway.infer(timeout=1.0)) for _ in range(20)))
        assert time.monotonic() - began < 5
        codes = {error.code() for error in failed}
        assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        assert all(
            "endpoint a" in error.details() or "deadline" in error.details().lower() for error in failed
        )
        async with asyncio.timeout(5):
            while _flying(await _metrics(running_gateway)):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def _metrics(gateway) -> str:
    async with gateway.http.get(gateway.url + "/metrics") as response:
        return await response.text()


def _flying(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("aigw_in_flight_requests{")]
    assert lines
    return sum(float(line.rpartition(" ")[2]) for line in lines)
