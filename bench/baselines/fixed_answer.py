"""The backend behind the gateways under measurement: answers every call with one prepared ModelInferResponse.

usage: fixed_answer.py PORT
"""

import asyncio
import sys

import grpc
import numpy as np
import uvloop
from inference import grpc_service_pb2 as pb


class FixedAnswer(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        response = pb.ModelInferResponse(
            model_name="m", raw_output_contents=[np.arange(10, dtype=np.float32).tobytes()]
        )
        response.outputs.add(name="y", datatype="FP32", shape=[1, 10])
        self.answer = response.SerializeToString()
        self.handler = grpc.unary_unary_rpc_method_handler(self.respond)

    async def respond(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return self.answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self.handler


async def main(port: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((FixedAnswer(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
