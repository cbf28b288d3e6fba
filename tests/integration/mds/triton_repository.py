"""Runs beside an unmodified tritonclient: configuration, statistics, repository and errors, over gRPC and
HTTP.

Arguments: gRPC address, HTTP address, model. Prints what came as JSON.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException


def told(call) -> str:
    """The text of the error that a call raises."""
    try:
        call()
    except InferenceServerException as error:
        return str(error.message())
    return ""


def look(client, module, model: str, as_json: dict) -> dict:
    """Everything of one face."""
    config = client.get_model_config(model, **as_json)
    config = config.get("config", config)
    statistics = client.get_inference_statistics(model, **as_json)["model_stats"][0]
    index = client.get_model_repository_index(**as_json)
    index = index["models"] if isinstance(index, dict) else index
    client.unload_model(model)
    gone = not client.is_model_ready(model)
    client.load_model(model)
    wrong = module.InferInput("x", [1, 4], "INT32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.int32))
    return {
        "max_batch_size": config["max_batch_size"],
        "backend": config["backend"],
        "statistics": int(statistics.get("inference_count", 0)),
        "index": [[m["name"], m["version"], m["state"]] for m in index],
        "reloaded": gone and client.is_model_ready(model),
        "shared memory": told(client.get_system_shared_memory_status),
        "wrong type": told(lambda: client.infer(model, [wrong])),
    }


def main(grpc_address: str, http_address: str, model: str) -> None:
    """Both faces."""
    over_grpc = triton_grpc.InferenceServerClient(grpc_address)
    over_http = triton_http.InferenceServerClient(http_address)
    found = {
        "grpc": look(over_grpc, triton_grpc, model, {"as_json": True}),
        "http": look(over_http, triton_http, model, {}),
    }
    over_grpc.close()
    over_http.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4])
