"""The Open Inference Protocol over gRPC, on a real server."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from chassis.testing import RunningService
from google.rpc import error_details_pb2, status_pb2
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc
from mds.api.infer_grpc import CONTENTS
from mds.domain.tensors import DataType
from penstock.mds.v1 import model_service_pb2, model_service_pb2_grpc

from tests.integration.mds.conftest import WEIGHTS, Serving

Make = Callable[..., pb.ModelInferRequest]
pytestmark = pytest.mark.asyncio(loop_scope="module")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def stub(service: RunningService) -> Any:
    return grpc_service_pb2_grpc.GRPCInferenceServiceStub(service.channel)


def values(response: pb.ModelInferResponse, index: int = 0, dtype: object = np.float32) -> np.ndarray:
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(response.outputs[index].shape)


async def until_busy(service: RunningService) -> None:
    """Waits until the model runs a batch."""
    api = model_service_pb2_grpc.ModelServiceStub(service.channel)
    request = model_service_pb2.GetServedModelRequest(name="servedModels/moody")
    for _ in range(500):
        if (await api.GetServedModel(request)).instances[0].busy:
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the model never began to run")


def reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.ErrorInfo()
            status.details[0].Unpack(info)
            assert info.domain == "penstock.dev"
            return info.reason
    raise AssertionError("the error has no details")


async def test_raw_contents_are_answered_with_raw_contents(
    linear: RunningService, infer_request: Make
) -> None:
    response = await stub(linear).ModelInfer(infer_request("linear", x=X, request_id="abc"))
    assert np.allclose(values(response), X @ WEIGHTS)
    assert (response.model_name, response.model_version, response.id) == ("linear", "1", "abc")
    assert response.outputs[0].name == "y"
    assert response.outputs[0].datatype == "FP32"


async def test_the_name_that_was_asked_for_is_echoed(linear: RunningService, infer_request: Make) -> None:
    response = await stub(linear).ModelInfer(infer_request("demo/linear", version="1", x=X))
    assert response.model_name == "demo/linear"


async def test_typed_contents_are_answered_with_typed_contents(linear: RunningService) -> None:
    request = pb.ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    tensor.contents.fp32_contents.extend(X.ravel())
    response = await stub(linear).ModelInfer(request)
    assert not response.raw_output_contents
    assert np.allclose(response.outputs[0].contents.fp32_contents, (X @ WEIGHTS).ravel())


async def test_large_tensors_go_through_as_well(linear: RunningService, infer_request: Make) -> None:
    large = np.random.default_rng(1).standard_normal((20_000, 4)).astype(np.float32)
    response = await stub(linear).ModelInfer(infer_request("linear", x=large, request_id="big"))
    assert np.allclose(values(response), large @ WEIGHTS, atol=1e-5)
    assert response.id == "big"


TYPES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[1, 65535]], np.uint16),
    "UINT32": np.array([[1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-32768, 3]], np.int16),
    "INT32": np.array([[-(2**31), 3]], np.int32),
    "INT64": np.array([[-(2**63), 3]], np.int64),
    "FP16": np.array([[0.5, -2]], np.float16),
    "FP32": np.array([[0.1, np.inf]], np.float32),
    "FP64": np.array([[0.1, -1e300]], np.float64),
    "BF16": np.array([[0.5, -3]], ml_dtypes.bfloat16),
}


async def test_every_type_comes_back_as_it_went_in(serving: Serving, types_package: Path) -> None:
    texts = [b"", b"\x00\xffabc"]
    raw_bytes = b"".join(len(t).to_bytes(4, "little") + t for t in texts)
    async with serving(types_package) as service:
        request = pb.ModelInferRequest(model_name="types")
        for kind, array in TYPES.items():
            request.inputs.add(name=kind.lower(), datatype=kind, shape=[1, 2])
            request.outputs.add(name=f"{kind.lower()}_back")
            request.raw_input_contents.append(array.tobytes())
        request.inputs.add(name="bytes", datatype="BYTES", shape=[1, 2])
        request.outputs.add(name="bytes_back")
        request.raw_input_contents.append(raw_bytes)
        response = await stub(service).ModelInfer(request)
    assert list(response.raw_output_contents) == list(request.raw_input_contents)
    assert [o.datatype for o in response.outputs] == [*TYPES, "BYTES"]


async def test_every_type_has_typed_contents(serving: Serving, types_package: Path) -> None:
    async with serving(types_package) as service:
        for kind, array in TYPES.items():
            if kind in ("FP16", "BF16"):
                continue  # the protocol has no typed contents for them
            field = CONTENTS[DataType[kind]]
            request = pb.ModelInferRequest(model_name="types")
            tensor = request.inputs.add(name=kind.lower(), datatype=kind, shape=[1, 2])
            getattr(tensor.contents, field).extend(array.ravel().tolist())
            request.outputs.add(name=f"{kind.lower()}_back")
            response = await stub(service).ModelInfer(request)
            assert list(getattr(response.outputs[0].contents, field)) == array.ravel().tolist(), kind


def broken(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="linear", raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    change(request)
    return request


BAD: dict[str, tuple[Callable[[pb.ModelInferRequest], object], str, str, str]] = {
    "unknown model": (
        lambda r: setattr(r, "model_name", "nobody"),
        "NOT_FOUND",
        "MODEL_UNKNOWN",
        "serves linear",
    ),
    "other project": (
        lambda r: setattr(r, "model_name", "b/linear"),
        "NOT_FOUND",
        "MODEL_UNKNOWN",
        "b/linear",
    ),
    "unknown version": (
        lambda r: setattr(r, "model_version", "9"),
        "NOT_FOUND",
        "VERSION_UNKNOWN",
        "serves 1",
    ),
    "wrong type": (
        lambda r: setattr(r.inputs[0], "datatype", "INT64"),
        "INVALID_ARGUMENT",
        "INPUT_TYPE_WRONG",
        "takes FP32",
    ),
    "no such type": (
        lambda r: setattr(r.inputs[0], "datatype", "FLOAT"),
        "INVALID_ARGUMENT",
        "INPUT_TYPE_WRONG",
        "no such type",
    ),
    "wrong shape": (
        lambda r: r.inputs[0].shape.__setitem__(1, 5),
        "INVALID_ARGUMENT",
        "INPUT_SHAPE_WRONG",
        "[2, 5]",
    ),
    "wrong rank": (
        lambda r: r.inputs[0].shape.append(1),
        "INVALID_ARGUMENT",
        "INPUT_SHAPE_WRONG",
        "takes [-1, 4]",
    ),
    "negative size": (
        lambda r: r.inputs[0].shape.__setitem__(0, -2),
        "INVALID_ARGUMENT",
        "INPUT_SHAPE_WRONG",
        "[-2, 4]",
    ),
    "no items": (
        lambda r: (r.inputs[0].shape.__setitem__(0, 0), r.raw_input_contents.__setitem__(0, b"")),
        "INVALID_ARGUMENT",
        "INPUT_EMPTY",
        "no items",
    ),
    "truncated contents": (
        lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 31),
        "INVALID_ARGUMENT",
        "INPUT_CONTENTS_WRONG",
        "needs 32",
    ),
    "contents missing": (
        lambda r: r.ClearField("raw_input_contents"),
        "INVALID_ARGUMENT",
        "INPUT_CONTENTS_WRONG",
        "0 elements",
    ),
    "contents for nobody": (
        lambda r: r.raw_input_contents.append(b""),
        "INVALID_ARGUMENT",
        "INPUT_CONTENTS_WRONG",
        "2 raw contents",
    ),
    "missing input": (
        lambda r: (r.ClearField("inputs"), r.ClearField("raw_input_contents")),
        "INVALID_ARGUMENT",
        "INPUT_MISSING",
        "'x' is missing",
    ),
    "extra input": (
        lambda r: (
            r.inputs.add(name="z", datatype="FP32", shape=[2, 4]),
            r.raw_input_contents.append(X.tobytes()),
        ),
        "INVALID_ARGUMENT",
        "INPUT_UNKNOWN",
        "no input 'z'",
    ),
    "duplicate input": (
        lambda r: (
            r.inputs.add(name="x", datatype="FP32", shape=[2, 4]),
            r.raw_input_contents.append(X.tobytes()),
        ),
        "INVALID_ARGUMENT",
        "INPUT_DUPLICATE",
        "twice",
    ),
    "unknown output": (
        lambda r: r.outputs.add(name="z"),
        "INVALID_ARGUMENT",
        "OUTPUT_UNKNOWN",
        "gives y FP32[-1, 3]",
    ),
    "shared memory": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "a"),
        "UNIMPLEMENTED",
        "SHARED_MEMORY_UNAVAILABLE",
        "shared memory",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_say_what_is_wrong(name: str, linear: RunningService) -> None:
    change, code, why, text = BAD[name]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(linear).ModelInfer(broken(change))
    assert caught.value.code().name == code
    assert reason(caught.value) == why
    assert text in (caught.value.details() or "")


async def test_bytes_that_are_no_message_are_refused(linear: RunningService) -> None:
    call = linear.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for payload in (b"\xff\xff\xff", b"\x0a\x7f", b"\x3a\xff\xff\xff\xff\x0f" + b"\0" * 40_000):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(payload)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(caught.value) == "REQUEST_MALFORMED"


async def test_an_oversize_message_is_refused(
    serving: Serving, linear_package: Path, infer_request: Make
) -> None:
    async with serving(linear_package, limits={"max_message_bytes": 10_000}) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(service).ModelInfer(infer_request("linear", x=np.zeros((5000, 4), np.float32)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub(service).ModelInfer(infer_request("linear", x=X))


async def test_an_expired_deadline_is_not_run(
    serving: Serving, moody_package: Path, infer_request: Make
) -> None:
    slow, quick = np.full((1, 1), 99, np.float32), np.ones((1, 1), np.float32)
    async with serving(moody_package) as service:
        busy = asyncio.ensure_future(stub(service).ModelInfer(infer_request("moody", x=slow)))
        await until_busy(service)
        late = infer_request("moody", x=quick)
        late.parameters["timeout"].int64_param = 50_000  # microseconds: the server's own word, not gRPC's
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(service).ModelInfer(late)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason(caught.value) == "DEADLINE_EXCEEDED"
        await busy


async def test_a_full_queue_refuses_at_once(
    serving: Serving, moody_package: Path, infer_request: Make
) -> None:
    slow = np.full((1, 1), 99, np.float32)
    async with serving(moody_package) as service:
        first = asyncio.ensure_future(stub(service).ModelInfer(infer_request("moody", x=slow)))
        await until_busy(service)  # now the queue of four is empty
        calls = [
            asyncio.ensure_future(stub(service).ModelInfer(infer_request("moody", x=slow))) for _ in range(6)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        await first
    refused = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert len(refused) == 2
    assert {r.code() for r in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {reason(r) for r in refused} == {"QUEUE_FULL"}


async def test_one_bad_request_of_a_batch_fails_alone(
    serving: Serving, moody_package: Path, infer_request: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(moody_package) as service:
        busy = asyncio.ensure_future(
            stub(service).ModelInfer(infer_request("moody", x=np.full((1, 1), 99, np.float32)))
        )
        await until_busy(service)
        numbers = [[1.0, 2.0], [-5.0], [666.0], [3.0]]
        calls = [
            asyncio.ensure_future(
                stub(service).ModelInfer(infer_request("moody", x=np.array([row], np.float32).T))
            )
            for row in numbers
        ]
        good, bad, fault, also_good = await asyncio.gather(*calls, return_exceptions=True)
        await busy
    assert isinstance(good, pb.ModelInferResponse)
    assert values(good).ravel().tolist() == [2, 4]
    assert isinstance(also_good, pb.ModelInferResponse)
    assert values(also_good).ravel().tolist() == [6]
    assert isinstance(bad, grpc.aio.AioRpcError)
    assert bad.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert bad.details() == "numbers must not be negative"
    assert isinstance(fault, grpc.aio.AioRpcError)
    assert fault.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (fault.details() or "")


async def test_requests_that_wait_share_a_run_and_get_their_own_rows(
    serving: Serving, moody_package: Path, infer_request: Make
) -> None:
    async with serving(moody_package) as service:

        def call(items: int, value: float) -> "asyncio.Future[pb.ModelInferResponse]":
            request = infer_request("moody", x=np.full((items, 1), value, np.float32))
            return asyncio.ensure_future(stub(service).ModelInfer(request))

        first = call(1, 99)
        await until_busy(service)
        answers = await asyncio.gather(first, call(2, 5), call(3, 6), call(1, 7))
        statistics = await stub(service).ModelStatistics(pb.ModelStatisticsRequest(name="moody"))
    assert [values(a).ravel().tolist() for a in answers] == [[198], [10, 10], [12, 12, 12], [14]]
    (stats,) = statistics.model_stats
    assert stats.inference_count == 7
    assert stats.execution_count == 2
    assert stats.inference_stats.success.count == 4
    assert sum(b.batch_size * b.compute_infer.count for b in stats.batch_stats) == 7


async def test_the_other_methods_answer(linear: RunningService) -> None:
    api = stub(linear)
    assert (await api.ServerLive(pb.ServerLiveRequest())).live
    assert (await api.ServerReady(pb.ServerReadyRequest())).ready
    assert (await api.ModelReady(pb.ModelReadyRequest(name="linear"))).ready
    server = await api.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "penstock"
    assert "binary_tensor_data" in server.extensions
    metadata = await api.ModelMetadata(pb.ModelMetadataRequest(name="demo/linear"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == (
        "demo/linear",
        ["1"],
        "onnxruntime_onnx",
    )
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 4])]
    config = (await api.ModelConfig(pb.ModelConfigRequest(name="linear"))).config
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [4]
    index = await api.RepositoryIndex(pb.RepositoryIndexRequest())
    assert [(m.name, m.version, m.state) for m in index.models] == [("linear", "1", "READY")]


@pytest.mark.parametrize(
    "method", ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"]
)
async def test_what_is_not_there_says_so(method: str, linear: RunningService) -> None:
    request = getattr(pb, f"{method}Request")()
    with pytest.raises(grpc.aio.AioRpcError, match=r"not available|cannot be changed") as caught:
        await getattr(stub(linear), method)(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_model_is_unloaded_and_loaded_again(linear: RunningService, infer_request: Make) -> None:
    api = stub(linear)
    await api.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="linear"))
    assert not (await api.ModelReady(pb.ModelReadyRequest(name="linear"))).ready
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.ModelInfer(infer_request("linear", x=X))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    index = await api.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert not index.models
    # As KServe's clients send it: the name is field 1.
    await api.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="linear"))
    assert np.allclose(values(await api.ModelInfer(infer_request("linear", x=X))), X @ WEIGHTS)


async def test_a_stream_answers_in_order_and_survives_errors(serving: Serving, moody_package: Path) -> None:
    def request(number: int, value: float) -> pb.ModelInferRequest:
        made = pb.ModelInferRequest(model_name="moody", id=str(number))
        made.inputs.add(name="x", datatype="FP32", shape=[1, 1])
        made.raw_input_contents.append(np.array([[value]], np.float32).tobytes())
        return made

    sent = [request(0, 99), request(1, 1), request(2, -1), request(3, 3)]
    sent[3].parameters["triton_enable_empty_final_response"].bool_param = True
    async with serving(moody_package) as service:
        answers = [a async for a in stub(service).ModelStreamInfer(iter(sent))]
    assert [a.infer_response.id for a in answers] == ["0", "1", "2", "3"]
    assert [bool(a.error_message) for a in answers] == [False, False, True, False]
    assert "numbers must not be negative" in answers[2].error_message
    assert values(answers[3].infer_response).item() == 6
    assert answers[3].infer_response.parameters["triton_final_response"].bool_param


async def test_a_stream_that_is_given_up_leaves_nothing_behind(
    serving: Serving, moody_package: Path, infer_request: Make
) -> None:
    slow = infer_request("moody", x=np.full((1, 1), 99, np.float32))
    async with serving(moody_package) as service:
        call = stub(service).ModelStreamInfer(iter([slow, slow, slow]))
        await call.read()
        call.cancel()
        answer = await stub(service).ModelInfer(infer_request("moody", x=np.ones((1, 1), np.float32)))
        assert values(answer).item() == 2
        await asyncio.sleep(0)
        assert not [t for t in asyncio.all_tasks() if "_answer_in_stream" in repr(t)]


async def test_reflection_and_health_know_the_service(linear: RunningService) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health = health_pb2_grpc.HealthStub(linear.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(linear.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    names = [
        s.name async for r in reflection.ServerReflectionInfo(asked) for s in r.list_services_response.service
    ]
    assert {"inference.GRPCInferenceService", "penstock.mds.v1.ModelService"} <= set(names)


async def test_model_service_tells_what_is_served(linear: RunningService, infer_request: Make) -> None:
    await stub(linear).ModelInfer(infer_request("linear", x=X))
    api = model_service_pb2_grpc.ModelServiceStub(linear.channel)
    model = await api.GetServedModel(model_service_pb2.GetServedModelRequest(name="servedModels/linear"))
    assert model.package == "projects/demo/models/linear/packages/1"
    assert model.digest.startswith("sha256:")
    assert model.state == model_service_pb2.ServedModel.STATE_READY
    assert model.statistics.succeeded >= 1
    assert list(model.instances[0].providers) == ["CPUExecutionProvider"]
    server = await api.GetModelServer(model_service_pb2.GetModelServerRequest())
    assert "onnx" in server.runtimes
    tuned = model_service_pb2.TuneServedModelRequest(name="servedModels/linear")
    tuned.batching.max_items = 3
    assert (await api.TuneServedModel(tuned)).batching.max_items == 3


async def test_a_watch_tells_each_change_of_state(linear: RunningService) -> None:
    api = model_service_pb2_grpc.ModelServiceStub(linear.channel)
    listed = await api.ListServedModels(model_service_pb2.ListServedModelsRequest())
    assert [model.name for model in listed.served_models] == ["servedModels/linear"]
    watch = api.WatchServedModel(model_service_pb2.WatchServedModelRequest(name="servedModels/linear"))
    assert (await watch.read()).state == model_service_pb2.ServedModel.STATE_READY
    await stub(linear).RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="linear"))
    assert (await watch.read()).state == model_service_pb2.ServedModel.STATE_UNLOADED
    await stub(linear).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="linear"))
    assert (await watch.read()).state == model_service_pb2.ServedModel.STATE_READY
    watch.cancel()


async def test_what_model_service_cannot_do_yet_says_so(linear: RunningService) -> None:
    api = model_service_pb2_grpc.ModelServiceStub(linear.channel)
    request = model_service_pb2.CheckServedModelRequest(name="servedModels/linear")
    with pytest.raises(
        grpc.aio.AioRpcError, match="CheckServedModel is not available in this version"
    ) as caught:
        await api.CheckServedModel(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    wrong = model_service_pb2.GetServedModelRequest(name="servedModels/nobody")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.GetServedModel(wrong)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
