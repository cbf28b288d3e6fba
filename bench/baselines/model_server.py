"""A bare grpc.aio + uvloop server of one ONNX model: decode, run in the loop, answer; nothing else.

usage: model_server.py PORT MODEL.onnx
"""

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime
import uvloop
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc as pb_grpc


class BareModelServer(pb_grpc.GRPCInferenceServiceServicer):
    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        tensor = request.inputs[0]
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
        (result,) = self.session.run(None, {"x": rows})
        response = pb.ModelInferResponse(
            model_name=request.model_name, id=request.id, raw_output_contents=[result.tobytes()]
        )
        response.outputs.add(name="y", datatype="FP32", shape=result.shape)
        return response


async def main(port: str, path: str) -> None:
    server = grpc.aio.server()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(BareModelServer(path), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
