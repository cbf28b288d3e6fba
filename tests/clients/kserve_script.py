"""Runs in an environment with an unmodified KServe client: asks a model over gRPC and REST. Prints JSON.

Arguments: gRPC address, base URL, model, .npy file, input, output.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, RESTConfig


async def main(grpc_address: str, rest_url: str, model: str, file: str, name: str, output: str) -> None:
    """Asks everything and prints what came."""
    array = np.load(file)
    found: dict[str, object] = {}

    def request(binary: bool) -> InferRequest:
        tensor = InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        return InferRequest(model_name=model, infer_inputs=[tensor], request_id="k1")

    async with InferenceGRPCClient(grpc_address) as grpc:
        found["grpc live"] = await grpc.is_server_live()
        found["grpc ready"] = await grpc.is_server_ready()
        found["grpc model ready"] = await grpc.is_model_ready(model)
        answer = await grpc.infer(request(True))
        found["grpc"] = _output(answer, output)
        found["grpc id"] = answer.id
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    found["rest live"] = await rest.is_server_live(rest_url)
    found["rest ready"] = await rest.is_server_ready(rest_url)
    found["rest model ready"] = await rest.is_model_ready(rest_url, model)
    for kind, binary in (("rest binary", True), ("rest json", False)):
        found[kind] = _output(await rest.infer(rest_url, request(binary), model_name=model), output)
    await rest.close()
    print(json.dumps(found))


def _output(answer: object, name: str) -> list:
    tensor = next(t for t in answer.outputs if t.name == name)  # type: ignore[attr-defined]  # an InferResponse
    return tensor.as_numpy().tolist()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:7]))
