"""A real gRPC server that plays a script, and clients of it."""

import asyncio
import collections
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2
from inference import grpc_service_pb2, grpc_service_pb2_grpc
from penstock.aigw.v1 import route_pb2, route_service_pb2, route_service_pb2_grpc
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from penstock.mds.v1 import package_pb2, package_service_pb2_grpc
from penstock_client import Address, AsyncClient, RetryPolicy, Settings

DEPLOYMENT = "projects/digits/deployments/classifier"


@dataclass
class Script:
    """What the server shall do, and what it saw."""

    failures: collections.deque[grpc.StatusCode] = field(default_factory=collections.deque)
    """The next calls fail so."""
    calls: list[str] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    packages: dict[str, package_pb2.Package] = field(default_factory=dict)
    break_download_after: int | None = None
    damage_download: bool = False
    resume_tokens: list[str] = field(default_factory=list)
    watched: asyncio.Event = field(default_factory=asyncio.Event)
    awaits_watch: bool = False
    """Operations end only when a watch has told everything."""
    outcome: int = deployment_pb2.ROLLOUT_STATE_COMPLETE

    async def enter(self, method: str, context: grpc.aio.ServicerContext) -> None:
        """Notes the call; fails it if the script says so."""
        self.calls.append(method)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.failures:
            await context.abort(self.failures.popleft(), "as the script says")


class Packages(package_service_pb2_grpc.PackageServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def GetPackage(self, request: Any, context: Any) -> package_pb2.Package:
        await self.script.enter("GetPackage", context)
        if request.name not in self.script.packages:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.name}")
        return self.script.packages[request.name]

    async def UploadPackage(self, request_iterator: Any, context: Any) -> package_pb2.Package:
        await self.script.enter("UploadPackage", context)
        start, data = None, b""
        async for message in request_iterator:
            if message.WhichOneof("part") == "start":
                start = message.start
            data += message.chunk
        assert start is not None
        self.script.stored[start.name] = data
        package = package_pb2.Package(
            name=start.name,
            archive_digest=start.archive_digest,
            size_bytes=len(data),
            state=package_pb2.Package.STATE_READY,
        )
        self.script.packages[start.name] = package
        return package

    async def DownloadPackage(self, request: Any, context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        await self.script.enter(f"DownloadPackage@{request.offset}", context)
        data = self.script.stored[request.name]
        if self.script.damage_download:
            data = b"X" + data[1:]
        for offset in range(request.offset, len(data), 1000):
            limit = self.script.break_download_after
            if limit is not None and offset >= limit:
                self.script.break_download_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            yield httpbody_pb2.HttpBody(data=data[offset : offset + 1000])


class Routes(route_service_pb2_grpc.RouteServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def GetRoute(self, request: Any, context: Any) -> route_pb2.Route:
        await self.script.enter("GetRoute", context)
        return route_pb2.Route(name=request.name)

    async def SetWeights(self, request: Any, context: Any) -> route_pb2.Route:
        await self.script.enter("SetWeights", context)
        return route_pb2.Route(name=request.name)

    async def ListRoutes(self, request: Any, context: Any) -> Any:
        await self.script.enter(f"ListRoutes {request.page_token}", context)
        number = int(request.page_token or 0)
        return route_service_pb2.ListRoutesResponse(
            routes=[route_pb2.Route(name=f"projects/p/routes/r{number}")],
            next_page_token=str(number + 1) if number < 2 else "",
        )


class Inference(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await self.script.enter("ModelMetadata", context)
        answer = grpc_service_pb2.ModelMetadataResponse(name=request.name)
        answer.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await self.script.enter("ModelInfer", context)
        answer = grpc_service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version or "1", id=request.id
        )
        answer.outputs.add(name="y", datatype=request.inputs[0].datatype, shape=request.inputs[0].shape)
        answer.raw_output_contents.append(request.raw_input_contents[0])
        return answer

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            if not request.raw_input_contents:
                yield grpc_service_pb2.ModelStreamInferResponse(error_message="nothing to work on")
                continue
            answer = await self.ModelInfer(request, context)
            yield grpc_service_pb2.ModelStreamInferResponse(infer_response=answer)


class Deployments(deployment_service_pb2_grpc.DeploymentServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def ApplyDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        await self.script.enter("ApplyDeployment", context)
        operation = operations_pb2.Operation(name="operations/1")
        operation.metadata.Pack(deployment_service_pb2.DeploymentOperationMetadata(deployment=DEPLOYMENT))
        return operation

    async def WatchDeployment(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.script.resume_tokens.append(request.resume_token)
        begin = int(request.resume_token or 0)
        for number in range(begin, 4):
            if number == 2 and begin == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarted")
            response = deployment_service_pb2.WatchDeploymentResponse(resume_token=str(number + 1))
            if number:
                response.event.message = f"event {number}"
            yield response
        self.script.watched.set()


class Operations(operations_pb2_grpc.OperationsServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def WaitOperation(self, request: Any, context: Any) -> operations_pb2.Operation:
        await self.script.enter("WaitOperation", context)
        operation = operations_pb2.Operation(name=request.name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.script.watched.wait(), 2 if self.script.awaits_watch else 0)
        if self.script.calls.count("WaitOperation") >= 2:
            operation.done = True
            deployment = deployment_pb2.Deployment(name=DEPLOYMENT)
            deployment.rollout_progress.state = self.script.outcome  # type: ignore[assignment]  # enum number
            deployment.rollout_progress.message = "replicas were not ready in time"
            packed = any_pb2.Any()
            packed.Pack(deployment)
            operation.response.CopyFrom(packed)
        return operation


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def address(script: Script) -> AsyncIterator[str]:
    server = grpc.aio.server()
    package_service_pb2_grpc.add_PackageServiceServicer_to_server(Packages(script), server)
    route_service_pb2_grpc.add_RouteServiceServicer_to_server(Routes(script), server)
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(script), server)
    deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(Deployments(script), server)
    operations_pb2_grpc.add_OperationsServicer_to_server(Operations(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def settings(address: str) -> Settings:
    here = Address(address, "http://127.0.0.1:1")
    return Settings(aigw=here, dplo=here, mds=here, timeout=5)


FAST = RetryPolicy(attempts=3, initial_delay=0.001)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings, retry=FAST) as made:
        yield made


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[[int], Path]:
    def make(size: int) -> Path:
        import zipfile

        path = tmp_path / "classifier-1.0.0.mdspkg"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("manifest.json", json.dumps({"model": "classifier", "version": "1.0.0"}))
            archive.writestr("model/model.onnx", bytes(index % 251 for index in range(size)))
        return path

    return make
