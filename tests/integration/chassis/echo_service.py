"""A small real service on the chassis: in tests it runs in process (`build`) and as a child (`main`)."""

import asyncio
import sys
from collections.abc import AsyncIterator

from chassis import errors
from chassis.auth import current_identity
from chassis.bootstrap import Host, main
from chassis.openapi import Described
from chassis.operations import MemoryOperationStore, Operations, Progress
from chassis.operations import servicer as operations_servicer
from chassis.settings import ServiceSettings
from chassis.transport.port import Call, DataPath
from google.protobuf import empty_pb2
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc
from pydantic_settings import SettingsConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ECHO = "test.v1.Echo"
ENDPOINTS = "penstock.aigw.v1.EndpointService"


class EchoSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="ECHO_")

    crash_after: float | None = None


class Endpoints(endpoint_service_pb2_grpc.EndpointServiceServicer):
    """A real contract, so that there is something to validate; the name decides what happens."""

    async def GetEndpoint(self, request, context):
        identity = current_identity()
        match request.name.rpartition("/")[2]:
            case "missing":
                raise errors.NotFound("no such endpoint", reason="ENDPOINT_UNKNOWN", metadata={"a": "b"})
            case "crash":
                raise KeyError("inner secret")
            case "hang":
                await asyncio.Event().wait()
            case "deadline":
                return pb.Endpoint(version=f"{context.time_remaining():.1f}")
        return pb.Endpoint(name=request.name, version=identity.name if identity else "nobody")

    async def DeregisterEndpoint(self, request, context):
        return empty_pb2.Empty()

    async def WatchEndpoints(self, request, context):
        yield pb.WatchEndpointsResponse(resume_token="1")
        if request.resume_token == "fail":
            raise errors.OutOfRange("too old", reason="RESUME_TOKEN_TOO_OLD")
        if request.resume_token == "crash":
            raise KeyError("inner secret")
        if request.resume_token == "forever":
            await asyncio.Event().wait()
        yield pb.WatchEndpointsResponse(resume_token="2")


async def unary(call: Call, payload: bytes) -> bytes:
    command, _, argument = payload.partition(b" ")
    match command:
        case b"sleep":
            await asyncio.sleep(float(argument))
        case b"who":
            return call.identity.name.encode() if call.identity else b"nobody"
        case b"metadata":
            return (call.metadata_value(argument.decode()) or "").encode()
        case b"fail":
            raise errors.Unavailable("not now", reason="NOT_NOW", retry_after=1.0)
    return payload


async def stream(call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for payload in payloads:
        yield payload


async def who(request: Request) -> Response:
    identity = request.scope.get("penstock.identity")
    return JSONResponse({"name": identity.name if identity else None})


async def fail(request: Request) -> Response:
    if request.path_params["how"] == "known":
        raise errors.ResourceExhausted("slow down", reason="RATE", retry_after=3)
    raise KeyError("inner secret")


async def slow(request: Request) -> Response:
    await asyncio.sleep(float(request.path_params["seconds"]))
    return JSONResponse({"slept": request.path_params["seconds"]})


async def count(request: Request) -> Response:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"bytes": size})


async def headers(request: Request) -> Response:
    await request.body()
    return JSONResponse(dict(request.headers))


async def build(host: Host, settings: ServiceSettings) -> None:
    operations = await host.enter(Operations(MemoryOperationStore()))

    async def work(progress: Progress) -> None:
        await asyncio.sleep(0)

    await operations.start("Echo", work)
    host.add_servicer(
        operations_servicer.add_to_server,
        operations_servicer.OperationsServicer(operations),
        service=operations_servicer.SERVICE,
    )
    host.add_servicer(
        endpoint_service_pb2_grpc.add_EndpointServiceServicer_to_server, Endpoints(), service=ENDPOINTS
    )
    host.add_data_path(
        DataPath(unary={f"/{ECHO}/Unary": unary}, stream={f"/{ECHO}/Stream": stream}), services=[ECHO]
    )
    host.add_http(Route("/who", who))
    host.add_http(Route("/fail/{how}", fail))
    host.add_http(Route("/slow/{seconds}", slow))
    host.add_http(Route("/headers", headers, methods=["POST"]))
    host.add_http(
        Route("/count", count, methods=["POST"]),
        described=Described({"/count": {"post": {"responses": {"200": {"description": "How many."}}}}}),
    )

    async def deregistered() -> None:
        host.log.info("deregistered")

    async def crash() -> None:
        crash_after = getattr(settings, "crash_after", None)
        if crash_after is not None:
            await asyncio.sleep(crash_after)
            raise RuntimeError("the task broke")

    host.on_drain(deregistered)
    host.add_task("crash", crash)


if __name__ == "__main__":
    sys.exit(main("echo", EchoSettings, build))
