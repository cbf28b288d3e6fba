"""What every route provider must do: the one in memory, and the gateway's contract through its client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from chassis import errors, status
from chassis.registry.embedded import EmbeddedRegistry, from_proto
from chassis.registry.memory import MemoryRegistry
from chassis.registry.port import Endpoint, EndpointEvent, EventKind, Lease
from chassis.testing import FakeClock
from google.protobuf import empty_pb2
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc

A = Endpoint(
    "digits", "classifier", "1", "a", "127.0.0.1:1", "127.0.0.1:2", "sha256:" + "0" * 64, {"zone": "x"}
)
B = Endpoint("faces", "finder", "2", "b", "127.0.0.1:3")


class EndpointService(endpoint_service_pb2_grpc.EndpointServiceServicer):
    """The gateway's contract over a registry in memory: what the client has to get along with."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry

    async def RegisterEndpoint(self, request: Any, context: Any) -> Any:
        name = f"{request.parent}/endpoints/{request.endpoint_id}"
        message = pb.Endpoint(name=name)
        message.MergeFrom(request.endpoint)
        message.name = name
        lease = await self._registry.register(from_proto(message), request.ttl.ToNanoseconds() / 1e9)
        return pb.RegisterEndpointResponse(endpoint=message, lease=self._lease(lease))

    async def RenewLease(self, request: Any, context: Any) -> Any:
        try:
            return self._lease(await self._registry.renew(Lease(request.name, request.lease_id, 10)))
        except errors.Error as error:
            await status.abort(context, error)

    async def DeregisterEndpoint(self, request: Any, context: Any) -> Any:
        await self._registry.deregister(Lease(request.name, request.lease_id, 10))
        return empty_pb2.Empty()

    async def WatchEndpoints(self, request: Any, context: Any) -> AsyncIterator[Any]:
        project = request.parent.split("/")[1]
        async for event in self._registry.watch(
            project=None if project == "-" else project, resume_token=request.resume_token
        ):
            if event.kind is EventKind.RESET:
                if request.resume_token:
                    await status.abort(context, errors.OutOfRange("too old", reason="RESUME_TOKEN_TOO_OLD"))
                continue
            message = pb.WatchEndpointsResponse(
                type=f"ENDPOINT_EVENT_TYPE_{event.kind.name}", resume_token=event.resume_token
            )
            if event.endpoint is not None:
                e = event.endpoint
                message.endpoint.CopyFrom(
                    pb.Endpoint(
                        name=f"projects/{e.project}/models/{e.model}/endpoints/{e.instance_id}",
                        version=e.version,
                        grpc_address=e.grpc_address,
                        http_address=e.http_address or "",
                        digest=e.digest,
                        labels=dict(e.labels),
                    )
                )
            yield message

    @staticmethod
    def _lease(lease: Lease) -> Any:
        message = pb.Lease(name=lease.name, lease_id=lease.id)
        message.ttl.FromNanoseconds(int(lease.ttl * 1e9))
        return message


@contextlib.asynccontextmanager
async def in_memory(clock: FakeClock) -> AsyncIterator[tuple[MemoryRegistry, MemoryRegistry]]:
    registry = MemoryRegistry(monotonic=clock.monotonic, history=8)
    yield registry, registry


@contextlib.asynccontextmanager
async def embedded(clock: FakeClock) -> AsyncIterator[tuple[EmbeddedRegistry, MemoryRegistry]]:
    registry = MemoryRegistry(monotonic=clock.monotonic, history=8)
    server = grpc.aio.server()
    endpoint_service_pb2_grpc.add_EndpointServiceServicer_to_server(EndpointService(registry), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield EmbeddedRegistry(channel), registry
    await server.stop(None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[in_memory, embedded], ids=["memory", "embedded"])
async def pair(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Any]:
    async with request.param(clock) as opened:
        yield opened


@pytest.fixture
def provider(pair: Any) -> Any:
    return pair[0]


@pytest.fixture
def behind(pair: Any) -> MemoryRegistry:
    return pair[1]


async def take(events: AsyncIterator[EndpointEvent], count: int) -> list[EndpointEvent]:
    return [await asyncio.wait_for(anext(events), 5) for _ in range(count)]


def told(events: list[EndpointEvent]) -> list[tuple[EventKind, Endpoint | None]]:
    return [(event.kind, event.endpoint) for event in events]


async def test_a_registered_endpoint_is_there_as_it_was_given(provider: Any, behind: MemoryRegistry) -> None:
    lease = await provider.register(A, 10)
    assert lease.name == "projects/digits/models/classifier/endpoints/a"
    assert lease.id
    assert lease.ttl == 10
    assert behind.endpoints == (A,)


async def test_a_lease_runs_out_unless_it_is_renewed(
    provider: Any, behind: MemoryRegistry, clock: FakeClock
) -> None:
    lease = await provider.register(A, 10)
    await clock.advance(9)
    lease = await provider.renew(lease)
    await clock.advance(9)
    assert behind.endpoints == (A,)
    await clock.advance(2)
    assert behind.endpoints == ()
    with pytest.raises(errors.NotFound, match="lost"):
        await provider.renew(lease)


async def test_deregistering_removes_at_once_and_twice_is_no_error(
    provider: Any, behind: MemoryRegistry
) -> None:
    lease = await provider.register(A, 10)
    await provider.deregister(lease)
    assert behind.endpoints == ()
    await provider.deregister(lease)


async def test_registering_again_takes_the_lease_over(provider: Any, behind: MemoryRegistry) -> None:
    first = await provider.register(A, 10)
    second = await provider.register(replace(A, version="2"), 10)
    await provider.deregister(first)
    assert [e.version for e in behind.endpoints] == ["2"]
    await provider.renew(second)


async def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(provider: Any) -> None:
    await provider.register(A, 10)
    events = provider.watch()
    assert told(await take(events, 3)) == [
        (EventKind.RESET, None),
        (EventKind.PUT, A),
        (EventKind.SYNCED, None),
    ]
    lease = await provider.register(B, 10)
    await provider.deregister(lease)
    assert told(await take(events, 2)) == [(EventKind.PUT, B), (EventKind.REMOVED, B)]
    await events.aclose()


async def test_a_watch_can_be_narrowed_to_a_project(provider: Any) -> None:
    await provider.register(A, 10)
    await provider.register(B, 10)
    events = provider.watch(project="faces")
    assert told(await take(events, 3))[1] == (EventKind.PUT, B)
    await events.aclose()


async def test_a_watch_resumes_where_it_ended(provider: Any) -> None:
    events = provider.watch()
    token = (await take(events, 2))[-1].resume_token
    await events.aclose()
    await provider.register(A, 10)
    resumed = provider.watch(resume_token=token)
    assert told(await take(resumed, 1)) == [(EventKind.PUT, A)]
    await resumed.aclose()


@pytest.mark.parametrize("kind", ["forgotten", "foreign"])
async def test_a_token_that_cannot_be_resumed_gets_a_snapshot(provider: Any, kind: str) -> None:
    events = provider.watch()
    token = (await take(events, 2))[-1].resume_token if kind == "forgotten" else "else.where"
    await events.aclose()
    for version in range(20):
        await provider.register(replace(A, version=str(version)), 10)
    again = provider.watch(resume_token=token)
    assert told(await take(again, 3)) == [
        (EventKind.RESET, None),
        (EventKind.PUT, replace(A, version="19")),
        (EventKind.SYNCED, None),
    ]
    await again.aclose()


async def test_renewing_and_registering_the_same_tells_watchers_nothing(provider: Any) -> None:
    lease = await provider.register(A, 10)
    events = provider.watch()
    await take(events, 3)
    await provider.renew(lease)
    await provider.register(A, 10)
    await provider.register(B, 10)
    assert told(await take(events, 1)) == [(EventKind.PUT, B)]
    await events.aclose()


async def test_a_lease_needs_time() -> None:
    with pytest.raises(errors.InvalidArgument, match="ttl"):
        await MemoryRegistry().register(A, 0)


async def test_a_gateway_that_is_gone_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        registry = EmbeddedRegistry(channel)
        with pytest.raises(errors.Unavailable):
            await registry.register(A, 10)
        events = registry.watch(resume_token="t")
        with pytest.raises(errors.Unavailable):
            await anext(events)


async def test_an_endpoint_with_a_broken_name_is_refused() -> None:
    with pytest.raises(errors.DataLoss, match="nonsense"):
        from_proto(pb.Endpoint(name="nonsense"))
