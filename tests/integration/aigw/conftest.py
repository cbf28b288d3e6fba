"""A real gateway in the test's process, with real replicas around it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aigw.bootstrap import build
from aigw.settings import AigwSettings
from chassis.telemetry import Telemetry
from chassis.testing import RunningService, running
from google.protobuf import duration_pb2
from inference import grpc_service_pb2 as oip
from inference import grpc_service_pb2_grpc as oip_grpc
from penstock.aigw.v1 import (
    endpoint_service_pb2,
    endpoint_service_pb2_grpc,
    route_pb2,
    route_service_pb2,
    route_service_pb2_grpc,
    traffic_service_pb2_grpc,
)

from tests.integration.aigw import replica as replica_module
from tests.integration.aigw.replica import Replica, serving

MODEL = "projects/digits/models/classifier"
ROUTE = "projects/digits/routes/classifier"


@dataclass
class ChildReplica:
    """A replica in a process of its own, so that it can be killed."""

    name: str
    version: str
    grpc_address: str
    http_address: str
    process: asyncio.subprocess.Process

    async def kill(self) -> None:
        """As `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@dataclass
class RunningGateway:
    """A gateway and the ways to talk to it."""

    service: RunningService
    http: aiohttp.ClientSession
    routes: Any = field(init=False)
    endpoints: Any = field(init=False)
    traffic: Any = field(init=False)
    inference: Any = field(init=False)

    def __post_init__(self) -> None:
        channel = self.service.channel
        self.routes = route_service_pb2_grpc.RouteServiceStub(channel)
        self.endpoints = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
        self.traffic = traffic_service_pb2_grpc.TrafficServiceStub(channel)
        self.inference = oip_grpc.GRPCInferenceServiceStub(channel)

    @property
    def url(self) -> str:
        return self.service.rest_url

    async def route(self, *weights: tuple[str, int], **more: Any) -> route_pb2.Route:
        """Declares `digits/classifier`."""
        targets = [route_pb2.Target(version=version, weight=weight) for version, weight in weights]
        return await self.routes.CreateRoute(
            route_service_pb2.CreateRouteRequest(
                parent="projects/digits",
                route_id="classifier",
                route=route_pb2.Route(targets=targets, **more),
            )
        )

    async def set_weights(self, **weights: int) -> route_pb2.Route:
        """Moves traffic: `v1=90, v2=10`."""
        return await self.routes.SetWeights(
            route_service_pb2.SetWeightsRequest(
                name=ROUTE,
                weights=[
                    route_service_pb2.VersionWeight(version=version[1:], weight=weight)
                    for version, weight in weights.items()
                ],
            )
        )

    async def register(
        self, replica: Replica | ChildReplica, ttl: float = 60.0, *, name: str = ""
    ) -> endpoint_service_pb2.RegisterEndpointResponse:
        """Registers a replica."""
        return await self.endpoints.RegisterEndpoint(
            endpoint_service_pb2.RegisterEndpointRequest(
                parent=MODEL,
                endpoint_id=name or replica.name,
                endpoint=endpoint_service_pb2.Endpoint(
                    version=replica.version,
                    grpc_address=replica.grpc_address,
                    http_address=replica.http_address,
                ),
                ttl=duration_pb2.Duration(nanos=int(ttl % 1 * 1e9), seconds=int(ttl)),
            )
        )

    async def infer(self, version: str = "", **options: Any) -> oip.ModelInferResponse:
        """One call over gRPC. `id` makes replicas misbehave."""
        request = oip.ModelInferRequest(
            model_name="digits/classifier",
            model_version=version,
            id=options.pop("id", ""),
            raw_input_contents=[b"tensor"],
        )
        return await self.inference.ModelInfer(request, timeout=options.pop("timeout", 10.0), **options)

    async def infer_rest(
        self, path: str = "/v2/models/digits/classifier/infer", **body: Any
    ) -> tuple[int, Any]:
        """One call over REST."""
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
def aigw_settings(tmp_path: Path) -> AigwSettings:
    """Settings that keep everything in the test's folder."""
    return AigwSettings(
        store={"path": tmp_path / "aigw.db"},
        access_log={"path": tmp_path / "access.log", "flush_interval": 0.02},
    )


@pytest.fixture
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start_gateway(http_session: aiohttp.ClientSession) -> Callable[..., Any]:
    """Starts gateways: `async with start_gateway(settings) as gateway`."""

    @contextlib.asynccontextmanager
    async def start(
        settings: AigwSettings, telemetry: Telemetry | None = None
    ) -> AsyncIterator[RunningGateway]:
        async with running(settings, build, name="aigw", telemetry=telemetry) as service:
            yield RunningGateway(service, http_session)

    return start


@pytest.fixture
async def running_gateway(start_gateway, aigw_settings) -> AsyncIterator[RunningGateway]:
    """A gateway on embedded defaults."""
    async with start_gateway(aigw_settings) as gateway:
        yield gateway


@pytest.fixture
async def start_replica() -> AsyncIterator[Callable[..., Any]]:
    """Starts replicas in the test's process: `replica = await start_replica("a", "1")`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, version: str = "1") -> Replica:
            return await stack.enter_async_context(serving(name, version))

        yield start


@pytest.fixture
async def spawn_replica() -> AsyncIterator[Callable[..., Any]]:
    """Starts replicas as child processes, which are killed at the end."""
    children: list[asyncio.subprocess.Process] = []

    async def spawn(name: str, version: str = "1") -> ChildReplica:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(replica_module.__file__), name, version,
            stdout=asyncio.subprocess.PIPE, start_new_session=True, env=dict(os.environ),
        )  # fmt: skip
        children.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30.0)
        addresses = json.loads(line)
        return ChildReplica(name, version, addresses["grpc"], addresses["http"], process)

    try:
        yield spawn
    finally:
        for process in children:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            transport = process._transport  # type: ignore[attr-defined]  # asyncio leaves its pipes open
            transport.close()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.fixture
def rpc_failure() -> Callable[..., Any]:
    """`error = await rpc_failure(call)`."""
    return failure
