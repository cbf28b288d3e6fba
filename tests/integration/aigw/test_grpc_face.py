"""Inference over gRPC through a real gateway to real replicas."""

import asyncio
from collections import Counter

import grpc
import pytest
from aigw.settings import AigwSettings
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from inference import grpc_service_pb2 as oip


async def _two_versions(gateway, start_replica, *weights):
    replicas = [await start_replica("a", "1"), await start_replica("b", "1"), await start_replica("c", "2")]
    await gateway.route(*weights)
    for replica in replicas:
        await gateway.register(replica)
    return replicas


async def test_calls_are_split_by_weight_and_in_turn(running_gateway, start_replica) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 9), ("2", 1))
    answers = [await running_gateway.infer() for _ in range(100)]
    assert Counter(answer.id for answer in answers) == {"a": 45, "b": 45, "c": 10}
    assert {(answer.id, answer.model_version) for answer in answers} == {("a", "1"), ("b", "1"), ("c", "2")}
    assert answers[0].raw_output_contents == [b"tensor"]
    assert answers[0].model_name == "digits/classifier"


async def test_a_version_can_be_asked_for(running_gateway, start_replica) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1))
    assert {(await running_gateway.infer("2")).id for _ in range(3)} == {"c"}


async def test_metadata_goes_up_and_trailing_metadata_comes_back(running_gateway, start_replica) -> None:
    (replica, *_) = await _two_versions(running_gateway, start_replica, ("1", 1))
    call = running_gateway.inference.ModelInfer(
        oip.ModelInferRequest(model_name="digits/classifier"),
        metadata=(("x-tenant", "blue"), ("authorization", "Bearer secret"), ("x-raw-bin", b"\0\1")),
        timeout=5.0,
    )
    await call
    assert ("x-served-by", "a") in tuple(await call.trailing_metadata())
    metadata, remaining = replica.seen[0]
    assert (metadata["x-tenant"], metadata["x-raw-bin"], "authorization" in metadata) == (
        "blue",
        b"\0\1",
        False,
    )
    assert 0 < remaining < 6.0  # gRPC rounds up


async def test_an_error_of_the_replica_arrives_with_its_own_details(
    running_gateway, start_replica, rpc_failure
) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1))
    error = await rpc_failure(running_gateway.infer(id="abort:INVALID_ARGUMENT"))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "a says abort:INVALID_ARGUMENT",
    )
    assert _reason(error) == "ITS_OWN"


@pytest.mark.parametrize(
    ("model", "version", "code", "reason"),
    [
        ("digits/nothing", "", grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ("nothing", "", grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ("", "", grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NAME_MISSING"),
        ("digits/classifier", "9", grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND"),
        ("digits/classifier", "2", grpc.StatusCode.UNAVAILABLE, "NO_READY_REPLICA"),
    ],
)
async def test_what_cannot_be_routed_is_told_as_a_status(
    running_gateway, start_replica, rpc_failure, model, version, code, reason
) -> None:
    await running_gateway.route(("1", 1), ("2", 0))
    await running_gateway.register(await start_replica("a"))
    request = oip.ModelInferRequest(model_name=model, model_version=version)
    error = await rpc_failure(running_gateway.inference.ModelInfer(request))
    assert (error.code(), _reason(error)) == (code, reason)


async def test_malformed_bytes_are_refused(running_gateway, rpc_failure) -> None:
    call = running_gateway.service.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    error = await rpc_failure(call(b"\x0a\x50abc"))
    assert (error.code(), _reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_MALFORMED")


async def test_a_deadline_that_a_replica_misses_is_told_with_the_replica(
    running_gateway, start_replica, rpc_failure
) -> None:
    await running_gateway.route(("1", 1), policy={"timeout": {"nanos": 200_000_000}})
    await running_gateway.register(await start_replica("a"))
    error = await rpc_failure(running_gateway.infer(id="sleep:30"))
    assert (error.code(), _reason(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "UPSTREAM_TIMEOUT")
    assert "endpoint a" in error.details()


async def test_a_caller_that_cancels_cancels_the_replica(running_gateway, start_replica) -> None:
    await running_gateway.route(("1", 1))
    replica = await start_replica("a")
    await running_gateway.register(replica)
    call = running_gateway.inference.ModelInfer(
        oip.ModelInferRequest(model_name="digits/classifier", id="sleep:30")
    )
    await _until(lambda: replica.running == 1)
    call.cancel()
    await _until(lambda: replica.running == 0)
    assert replica.cancelled == 1


async def test_an_oversize_message_is_refused(
    start_gateway, aigw_settings: AigwSettings, rpc_failure
) -> None:
    small = aigw_settings.model_copy(
        update={"limits": aigw_settings.limits.model_copy(update={"max_message_bytes": 10_000})}
    )
    async with start_gateway(small) as gateway:
        request = oip.ModelInferRequest(model_name="digits/classifier", raw_input_contents=[b"x" * 20_000])
        error = await rpc_failure(gateway.inference.ModelInfer(request))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "10000" in error.details()


async def test_streams_go_to_one_replica_and_come_back_in_order(running_gateway, start_replica) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1))

    async def requests():
        for number in range(20):
            yield oip.ModelInferRequest(
                model_name="digits/classifier",
                raw_input_contents=[b"%d" % number],
            )

    answers = [a.infer_response async for a in running_gateway.inference.ModelStreamInfer(requests())]
    assert [answer.raw_output_contents[0] for answer in answers] == [b"%d" % n for n in range(20)]
    assert len({answer.id for answer in answers}) == 1


async def test_a_stream_that_changes_its_model_is_refused(
    running_gateway, start_replica, rpc_failure
) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1))

    async def requests():
        yield oip.ModelInferRequest(model_name="digits/classifier")
        yield oip.ModelInferRequest(model_name="digits/other")

    async def consume():
        async for _ in running_gateway.inference.ModelStreamInfer(requests()):
            pass

    error = await rpc_failure(consume())
    assert (error.code(), _reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "STREAM_CHANGES_MODEL")


async def test_questions_about_a_model_are_forwarded(running_gateway, start_replica) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1))
    inference = running_gateway.inference
    metadata = await inference.ModelMetadata(oip.ModelMetadataRequest(name="digits/classifier", version="2"))
    assert (metadata.name, list(metadata.versions)) == ("digits/classifier", ["2"])
    assert (await inference.ModelReady(oip.ModelReadyRequest(name="digits/classifier"))).ready


async def test_a_model_without_replicas_is_not_ready(running_gateway) -> None:
    await running_gateway.route(("1", 1))
    ready = await running_gateway.inference.ModelReady(oip.ModelReadyRequest(name="digits/classifier"))
    assert not ready.ready


async def test_the_gateway_answers_for_itself(running_gateway, start_replica, rpc_failure) -> None:
    await _two_versions(running_gateway, start_replica, ("1", 1), ("9", 0))
    inference = running_gateway.inference
    assert (await inference.ServerLive(oip.ServerLiveRequest())).live
    assert (await inference.ServerReady(oip.ServerReadyRequest())).ready
    assert (await inference.ServerMetadata(oip.ServerMetadataRequest())).name == "penstock-aigw"
    index = await inference.RepositoryIndex(oip.RepositoryIndexRequest())
    assert [(m.name, m.version, m.state) for m in index.models] == [
        ("digits/classifier", "1", "READY"),
        ("digits/classifier", "2", "READY"),
        ("digits/classifier", "9", "UNAVAILABLE"),
    ]
    error = await rpc_failure(inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="x")))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "RepositoryModelLoad is not available through the gateway" in error.details()


async def test_reflection_and_health_tell_of_inference_and_of_the_control_plane(running_gateway) -> None:
    def look() -> tuple[set[str], int]:
        with grpc.insecure_channel(running_gateway.service.grpc_address) as channel:
            services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
            return services, health.Check(request).status

    services, status = await asyncio.to_thread(look)
    assert services >= {
        "inference.GRPCInferenceService",
        *(f"penstock.aigw.v1.{name}Service" for name in ("Route", "Endpoint", "Traffic", "Job", "Key")),
    }
    assert status == health_pb2.HealthCheckResponse.SERVING


def _reason(error: grpc.aio.AioRpcError) -> str:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def _until(condition, seconds: float = 5.0) -> None:
    """Waits for something that another task brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it is the replica's own count, which nobody signals
            await asyncio.sleep(0.005)
