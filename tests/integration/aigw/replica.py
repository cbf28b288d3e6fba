"""A small real replica: the Open Inference Protocol over grpc.aio and HTTP. Runs in the test, or as a child
process.

It answers with its own name as `id` and its version as `model_version`. A request's own `id` makes it
misbehave: `abort:CODE` fails, `sleep:SECONDS` takes its time.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from aiohttp import web
from google.rpc import error_details_pb2, status_pb2
from inference import grpc_service_pb2 as oip
from inference import grpc_service_pb2_grpc as oip_grpc


class Replica(oip_grpc.GRPCInferenceServiceServicer):
    """One replica. `seen` keeps the metadata and the remaining time of each gRPC call, `headers` those of
    HTTP.
    """

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.grpc_address = ""
        self.http_address = ""
        self.seen: list[tuple[dict[str, Any], float | None]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.running = 0
        self.cancelled = 0

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
        """Answers as itself."""
        self.seen.append((dict(context.invocation_metadata()), context.time_remaining()))
        self.running += 1
        try:
            await self._behave(request.id, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        context.set_trailing_metadata((("x-served-by", self.name),))
        return oip.ModelInferResponse(
            model_name=request.model_name,
            model_version=self.version,
            id=self.name,
            raw_output_contents=request.raw_input_contents,
        )

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Answers each message as itself."""
        async for request in request_iterator:
            await self._behave(request.id, context)
            yield oip.ModelStreamInferResponse(
                infer_response=oip.ModelInferResponse(
                    model_version=self.version, id=self.name, raw_output_contents=request.raw_input_contents
                )
            )

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
        """Is ready."""
        return oip.ModelReadyResponse(ready=True)

    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: Any
    ) -> oip.ModelMetadataResponse:
        """Tells its version."""
        return oip.ModelMetadataResponse(name=request.name, versions=[self.version], platform=self.name)

    async def http(self, request: web.Request) -> web.Response:
        """Answers any request as itself; JSON is looked into, everything else is echoed."""
        body = await request.read()
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        self.paths.append(request.raw_path)
        if "inference-header-content-length" in request.headers:
            kept = {"inference-header-content-length": request.headers["inference-header-content-length"]}
            return web.Response(body=body, headers=kept, content_type="application/octet-stream")
        asked = json.loads(body).get("id", "") if body else ""
        if asked.startswith("sleep:"):
            try:
                await asyncio.sleep(float(asked[6:]))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if asked.startswith("abort:"):
            return web.json_response({"error": f"{self.name} says {asked}"}, status=int(asked[6:]))
        return web.json_response({"model_version": self.version, "id": self.name})

    async def _behave(self, asked: str, context: Any) -> None:
        if asked.startswith("sleep:"):
            await asyncio.sleep(float(asked[6:]))
        if asked.startswith("abort:"):
            code = grpc.StatusCode[asked[6:]]
            status = status_pb2.Status(code=code.value[0], message=f"{self.name} says {asked}")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason="ITS_OWN", domain="replica"))
            await context.abort(
                code, status.message, (("grpc-status-details-bin", status.SerializeToString()),)
            )


@contextlib.asynccontextmanager
async def serving(name: str, version: str) -> AsyncIterator[Replica]:
    """A replica on free ports until the context ends; then it finishes what it has."""
    replica = Replica(name, version)
    server = grpc.aio.server()
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(replica, server)
    replica.grpc_address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", replica.http)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    replica.http_address = "{}:{}".format(*runner.addresses[0])
    try:
        yield replica
    finally:
        await asyncio.gather(server.stop(2.0), runner.cleanup())


async def main(name: str, version: str) -> None:
    """Serves until killed; tells its addresses on the first line of standard output."""
    async with serving(name, version) as replica:
        print(json.dumps({"grpc": replica.grpc_address, "http": replica.http_address}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
