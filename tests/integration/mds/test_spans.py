"""The spans of one inference: right names, right parents, right order."""

import itertools
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from chassis.testing import recording_telemetry
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc

from tests.integration.mds.conftest import Serving

CHILDREN = ["queue", "preprocess", "inference", "postprocess"]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("face", ["grpc", "rest"])
async def test_the_server_span_has_the_steps_as_children(
    face: str, serving: Serving, moody_package: Path, infer_request: Callable[..., pb.ModelInferRequest]
) -> None:
    telemetry, recorder = recording_telemetry("mds")
    async with serving(moody_package, telemetry=telemetry) as service:
        traceparent = f"00-{TRACE}-{PARENT}-01"
        if face == "grpc":
            stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(service.channel)
            request = infer_request("moody", x=np.ones((1, 1), np.float32))
            await stub.ModelInfer(request, metadata=[("traceparent", traceparent)])
        else:
            async with httpx.AsyncClient(trust_env=False) as client:
                tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
                await client.post(
                    f"{service.rest_url}/v2/models/moody/infer",
                    json={"inputs": [tensor]},
                    headers={"traceparent": traceparent},
                )
    spans = [s for s in recorder.spans if s.context and f"{s.context.trace_id:032x}" == TRACE]
    (server,) = [s for s in spans if s.parent is not None and f"{s.parent.span_id:016x}" == PARENT]
    assert server.context is not None
    children = [s for s in spans if s.parent is not None and s.parent.span_id == server.context.span_id]
    assert [s.name for s in children] == CHILDREN
    for span, following in itertools.pairwise(children):
        assert span.end_time == following.start_time
    assert server.start_time is not None
    assert children[0].start_time is not None
    assert children[0].start_time >= server.start_time - 1_000_000
    assert children[2].attributes is not None
    assert children[2].attributes["mds.batch.items"] == 1


async def test_an_unsampled_call_makes_no_spans(
    serving: Serving, moody_package: Path, infer_request: Callable[..., pb.ModelInferRequest]
) -> None:
    telemetry, recorder = recording_telemetry("mds")
    async with serving(moody_package, telemetry=telemetry) as service:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(service.channel)
        request = infer_request("moody", x=np.ones((1, 1), np.float32))
        await stub.ModelInfer(request, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
    assert recorder.spans == ()
