"""A bare grpc.aio + uvloop byte proxy of unary calls to one upstream; no routing, retries or telemetry.

usage: byte_proxy.py PORT UPSTREAM_ADDRESS
"""

import asyncio
import sys

import grpc
import uvloop


class Proxy(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls: dict[str, grpc.aio.UnaryUnaryMultiCallable] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method
        call = self.calls.get(method) or self.calls.setdefault(method, self.channel.unary_unary(method))

        async def forward(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await call(request)

        return grpc.unary_unary_rpc_method_handler(forward)


async def main(port: str, upstream: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Proxy(grpc.aio.insecure_channel(upstream)),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
