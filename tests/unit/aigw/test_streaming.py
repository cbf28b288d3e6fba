"""Streams stay at one replica; another is tried only while nothing was answered."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aigw.api.grpc_inference import GrpcInference
from aigw.app.streaming import REPLAY_BYTES
from chassis import errors
from chassis.errors import Code
from chassis.transport.port import Call
from inference import grpc_service_pb2 as oip

REFUSED = errors.Unavailable("connection refused", reason="UNAVAILABLE")


def _message(model: str = "digits/classifier", version: str = "", tag: bytes = b"") -> bytes:
    return oip.ModelInferRequest(
        model_name=model, model_version=version, raw_input_contents=[tag] if tag else []
    ).SerializeToString()


async def _source(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@pytest.fixture
async def inference(gateway) -> GrpcInference:
    await gateway.route(("1", 1))
    await gateway.register("a")
    await gateway.register("b")
    return GrpcInference(
        gateway.router, gateway.forwarder, gateway.streams, clock=gateway.clock, name="aigw", version="0"
    )


def _answers(inference: GrpcInference, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    return inference.model_stream_infer(Call("/inference.GRPCInferenceService/ModelStreamInfer"), source)


async def test_all_messages_of_a_stream_go_to_one_replica(gateway, inference) -> None:
    messages = [_message(tag=b"%d" % n) for n in range(5)]
    answers = [answer async for answer in _answers(inference, _source(*messages))]
    assert answers == [b"a:" + message for message in messages]
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.OK: 1}
    assert gateway.traffic.series("digits/classifier", "1").total.request_bytes == sum(map(len, messages))


async def test_a_replica_that_is_dead_is_replaced_before_the_first_answer(gateway, inference) -> None:
    gateway.replicas["a"].fails(REFUSED)
    messages = [_message(tag=b"1"), _message(tag=b"2")]
    assert [x async for x in _answers(inference, _source(*messages))] == [b"b:" + m for m in messages]


async def test_messages_already_sent_are_sent_again_to_the_next_replica(gateway, inference) -> None:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def live() -> AsyncIterator[bytes]:
        while (message := await queue.get()) is not None:
            yield message

    async def swallow(payload: bytes) -> bytes:  # takes messages, and dies before it answers any
        await queue.put(_message(tag=b"3"))
        raise REFUSED

    gateway.replicas["a"].behaviour = swallow
    for message in (_message(tag=b"1"), _message(tag=b"2")):
        queue.put_nowait(message)
    answers = _answers(inference, live())
    got = [await anext(answers) for _ in range(3)]
    queue.put_nowait(None)
    assert [x async for x in answers] == []
    assert got == [b"b:" + _message(tag=t) for t in (b"1", b"2", b"3")]


async def test_after_an_answer_nothing_is_tried_again(gateway, inference) -> None:
    gateway.replicas["a"].fails(None, REFUSED)
    answers = _answers(inference, _source(_message(tag=b"1"), _message(tag=b"2")))
    assert await anext(answers) == b"a:" + _message(tag=b"1")
    with pytest.raises(errors.Unavailable):
        await anext(answers)
    assert not gateway.replicas["b"].calls


async def test_a_stream_that_sent_too_much_to_keep_is_not_tried_again(gateway, inference) -> None:
    async def swallow(payload: bytes) -> bytes:
        if len(gateway.replicas["a"].calls) < 2:
            await asyncio.sleep(0)
        raise REFUSED

    gateway.replicas["a"].behaviour = swallow
    big = _message(tag=b"x" * (REPLAY_BYTES + 1))
    # The first message is always kept; it is what follows that may be too much.
    requests = _source(_message(), big)

    async def stream(method, payloads, *, metadata=(), deadline=None):  # type: ignore[no-untyped-def]
        async for payload in payloads:
            if len(payload) > REPLAY_BYTES:
                raise REFUSED
        yield b""

    gateway.replicas["a"].stream = stream
    with pytest.raises(errors.Unavailable):
        _ = [x async for x in _answers(inference, requests)]
    assert not gateway.replicas["b"].calls


@pytest.mark.parametrize(
    "second", [_message("digits/other"), _message(version="2")], ids=["other model", "other version"]
)
async def test_a_stream_that_changes_its_model_is_refused(gateway, inference, second) -> None:
    answers = _answers(inference, _source(_message(), second))
    assert await anext(answers) == b"a:" + _message()
    with pytest.raises(errors.InvalidArgument, match="open a second stream"):
        await anext(answers)
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.INVALID_ARGUMENT: 1}


async def test_a_malformed_message_ends_the_stream(gateway, inference) -> None:
    with pytest.raises(errors.InvalidArgument, match="not a valid message"):
        _ = [x async for x in _answers(inference, _source(b"\x0a"))]
    with pytest.raises(errors.InvalidArgument, match="not a valid message"):
        _ = [x async for x in _answers(inference, _source(_message(), b"\x0a"))]


async def test_an_unknown_model_is_refused_and_an_empty_stream_is_not(gateway, inference) -> None:
    with pytest.raises(errors.NotFound):
        _ = [x async for x in _answers(inference, _source(_message("digits/nothing")))]
    assert [x async for x in _answers(inference, _source())] == []


async def test_a_caller_that_goes_away_leaves_nothing_in_flight(gateway, inference) -> None:
    async def forever() -> AsyncIterator[bytes]:
        yield _message()
        await asyncio.Event().wait()

    answers = _answers(inference, forever())
    await anext(answers)
    assert gateway.router.replica("digits/classifier", "a").in_flight == 1
    await answers.aclose()
    await gateway.clock.settle()
    assert gateway.router.replica("digits/classifier", "a").in_flight == 0
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.CANCELLED: 1}
