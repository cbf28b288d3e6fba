"""Runs beside an unmodified tritonclient: asks a model over gRPC, HTTP with binary tensors, HTTP with JSON
tensors, and a gRPC stream. Prints the answers as JSON.

Arguments: gRPC address, HTTP address, model, version (may be empty), .npy file, input, output.
"""

import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http


def main(
    grpc_address: str, http_address: str, model: str, version: str, file: str, name: str, output: str
) -> None:
    """Asks everything and prints what came."""
    array = np.load(file)
    found: dict[str, object] = {}
    grpc = triton_grpc.InferenceServerClient(grpc_address)
    http = triton_http.InferenceServerClient(http_address)
    for face, client in (("grpc", grpc), ("http", http)):
        found[f"{face} live"] = client.is_server_live()
        found[f"{face} ready"] = client.is_server_ready()
        found[f"{face} model ready"] = client.is_model_ready(model, version)
    metadata = grpc.get_model_metadata(model, version)
    found["grpc inputs"] = [[t.name, t.datatype, list(t.shape)] for t in metadata.inputs]
    found["http inputs"] = [
        [t["name"], t["datatype"], t["shape"]] for t in http.get_model_metadata(model, version)["inputs"]
    ]

    def grpc_input() -> triton_grpc.InferInput:
        tensor = triton_grpc.InferInput(name, array.shape, _datatype(array))
        tensor.set_data_from_numpy(array)
        return tensor

    answer = grpc.infer(model, [grpc_input()], version, request_id="g1")
    found["grpc"] = answer.as_numpy(output).tolist()
    found["grpc id"] = answer.get_response().id
    found["grpc version"] = answer.get_response().model_version
    for kind, binary in (("http binary", True), ("http json", False)):
        tensor = triton_http.InferInput(name, array.shape, _datatype(array))
        tensor.set_data_from_numpy(array, binary_data=binary)
        wanted = triton_http.InferRequestedOutput(output, binary_data=binary)
        answer = http.infer(model, [tensor], version, outputs=[wanted], request_id="h1")
        found[kind] = answer.as_numpy(output).tolist()
        found[f"{kind} version"] = answer.get_response()["model_version"]
    found["stream"] = _stream(grpc, model, version, grpc_input(), output)
    try:
        grpc.infer("digits/nothing", [grpc_input()])
    except triton_grpc.InferenceServerException as error:
        found["unknown model"] = str(error.status())
    grpc.close()
    http.close()
    print(json.dumps(found))


def _stream(
    client: triton_grpc.InferenceServerClient, model: str, version: str, tensor: object, output: str
) -> list:
    answers: queue.Queue = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(3):
        client.async_stream_infer(model, [tensor], version, request_id=str(index))
    found = []
    for _ in range(3):
        result, error = answers.get(timeout=20)
        if error is not None:
            raise error
        found.append(result.as_numpy(output).tolist())
    client.stop_stream()
    return found


def _datatype(array: np.ndarray) -> str:
    return {"f4": "FP32", "f8": "FP64", "i8": "INT64", "u1": "UINT8"}[array.dtype.str[1:]]


if __name__ == "__main__":
    main(*sys.argv[1:8])
