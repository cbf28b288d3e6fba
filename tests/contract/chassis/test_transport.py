"""What every transport must do, in memory and over real gRPC sockets alike."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from chassis import errors
from chassis.auth import Authenticator
from chassis.server.grpc_face import server_options
from chassis.settings import AuthSettings, LimitsSettings
from chassis.telemetry import Telemetry
from chassis.transport.grpcio import DataPathHandler, GrpcConnector
from chassis.transport.memory import MemoryNetwork
from chassis.transport.port import Call, DataPath, Upstream

UNARY, STREAM = "/test.v1.Echo/Unary", "/test.v1.Echo/Stream"


class Echo:
    """The service under test; what it saw is kept."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.metadata: dict[str, str | bytes] = {}
        self.remaining: float | None = None
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.produced = 0

    def data_path(self) -> DataPath:
        return DataPath(
            unary={UNARY: self.unary},
            stream={STREAM: self.stream},
            fallback_stream={"test.v1.Other": self.fallback},
        )

    async def unary(self, call: Call, payload: bytes) -> bytes:
        self.metadata = dict(call.metadata)
        self.remaining = call.remaining()
        self.begun.set()
        match payload:
            case b"fail":
                raise errors.NotFound(
                    "no such model", reason="MODEL_UNKNOWN", metadata={"model": "a"}, retry_after=2.0
                )
            case b"crash":
                raise KeyError("inner secret")
            case b"hang":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case b"trailing":
                call.add_trailing("x-text", "value")
                call.add_trailing("x-raw-bin", b"\x00\xff")
        return b"echo:" + payload

    async def stream(self, call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.begun.set()
        try:
            async for payload in payloads:
                if payload == b"fail":
                    raise errors.ResourceExhausted("queue full", reason="QUEUE_FULL")
                if payload == b"many":
                    while True:
                        self.produced += 1
                        yield b"m" * 1000
                        await asyncio.sleep(0)
                if payload == b"hang":
                    await asyncio.Event().wait()
                yield b"echo:" + payload
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def fallback(self, call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for payload in payloads:
            yield call.method.encode() + b" " + payload


@pytest.fixture
def echo() -> Echo:
    return Echo()


@contextlib.asynccontextmanager
async def over_memory(echo: Echo) -> AsyncIterator[Upstream]:
    network = MemoryNetwork()
    network.serve("echo", echo.data_path())
    yield network.connect("echo")


@contextlib.asynccontextmanager
async def over_grpc(echo: Echo) -> AsyncIterator[Upstream]:
    server = grpc.aio.server(options=server_options(LimitsSettings()))
    handler = DataPathHandler(echo.data_path(), Telemetry("test", "0"), Authenticator(AuthSettings()))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = GrpcConnector().connect(f"127.0.0.1:{port}")
    try:
        yield upstream
    finally:
        await upstream.close()
        await server.stop(None)


@pytest.fixture(params=[over_memory, over_grpc], ids=["memory", "grpc"])
async def upstream(request: pytest.FixtureRequest, echo: Echo) -> AsyncIterator[Upstream]:
    async with request.param(echo) as opened:
        yield opened


async def sent(*payloads: bytes) -> AsyncIterator[bytes]:
    for payload in payloads:
        yield payload


async def endless(*payloads: bytes) -> AsyncIterator[bytes]:
    for payload in payloads:
        yield payload
    await asyncio.Event().wait()


async def test_bytes_go_and_come_back(upstream: Upstream) -> None:
    big = bytes(range(256)) * 20_000  # more than gRPC's default limit of 4 MiB
    reply = await upstream.unary(UNARY, big)
    assert reply.payload == b"echo:" + big


async def test_metadata_arrives_without_what_belongs_to_one_hop(upstream: Upstream, echo: Echo) -> None:
    await upstream.unary(
        UNARY,
        b"",
        metadata=(
            ("x-request-id", "7"),
            ("x-raw-bin", b"\x00\x01"),
            ("authorization", "Bearer secret"),
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            ("user-agent", "someone"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ),
    )
    assert echo.metadata["x-request-id"] == "7"
    assert echo.metadata["x-raw-bin"] == b"\x00\x01"
    assert echo.metadata["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    assert not {"authorization", "te", "grpc-timeout"} & echo.metadata.keys()
    assert echo.metadata.get("user-agent") != "someone"


async def test_trailing_metadata_comes_with_the_answer(upstream: Upstream) -> None:
    reply = await upstream.unary(UNARY, b"trailing")
    assert dict(reply.trailing) == {"x-text": "value", "x-raw-bin": b"\x00\xff"}
    assert (await upstream.unary(UNARY, b"")).trailing == ()


async def test_errors_keep_their_code_reason_and_details(upstream: Upstream) -> None:
    with pytest.raises(errors.NotFound) as caught:
        await upstream.unary(UNARY, b"fail")
    assert (caught.value.message, caught.value.reason) == ("no such model", "MODEL_UNKNOWN")
    assert dict(caught.value.metadata) == {"model": "a"}
    assert caught.value.retry_after == 2.0


async def test_the_deadline_travels(upstream: Upstream, echo: Echo) -> None:
    await upstream.unary(UNARY, b"", deadline=time.monotonic() + 20)
    assert echo.remaining is not None
    assert 15 < echo.remaining <= 21  # the wire rounds up
    await upstream.unary(UNARY, b"")
    assert echo.remaining is None


async def test_a_passed_deadline_is_not_sent(upstream: Upstream, echo: Echo) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await upstream.unary(UNARY, b"", deadline=time.monotonic() - 1)
    with pytest.raises(errors.DeadlineExceeded):
        await anext(aiter(upstream.stream(STREAM, sent(b"a"), deadline=time.monotonic() - 1)))


async def test_a_deadline_ends_a_call_on_both_sides(upstream: Upstream, echo: Echo) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await upstream.unary(UNARY, b"hang", deadline=time.monotonic() + 0.1)
    await asyncio.wait_for(echo.cancelled.wait(), 5)


async def test_cancelling_a_call_cancels_the_handler(upstream: Upstream, echo: Echo) -> None:
    task = asyncio.create_task(upstream.unary(UNARY, b"hang"))
    await asyncio.wait_for(echo.begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(echo.cancelled.wait(), 5)


async def test_streams_go_both_ways(upstream: Upstream) -> None:
    answers = [answer async for answer in upstream.stream(STREAM, sent(b"a", b"b"))]
    assert answers == [b"echo:a", b"echo:b"]


async def test_a_stream_answers_while_it_is_fed(upstream: Upstream) -> None:
    answers = upstream.stream(STREAM, endless(b"first"))
    assert await asyncio.wait_for(anext(answers), 5) == b"echo:first"
    await answers.aclose()


async def test_a_stream_that_fails_keeps_what_came_before(upstream: Upstream) -> None:
    got = []
    answers = upstream.stream(STREAM, sent(b"a", b"fail"))
    got.append(await anext(answers))
    with pytest.raises(errors.ResourceExhausted) as caught:
        await anext(answers)
    assert got == [b"echo:a"]
    assert caught.value.reason == "QUEUE_FULL"


async def test_closing_a_stream_cancels_the_handler(upstream: Upstream, echo: Echo) -> None:
    answers = upstream.stream(STREAM, endless(b"a"))
    await anext(answers)
    await answers.aclose()
    await asyncio.wait_for(echo.cancelled.wait(), 5)


async def test_a_slow_reader_slows_the_handler(upstream: Upstream, echo: Echo) -> None:
    answers = upstream.stream(STREAM, endless(b"many"))
    await anext(answers)
    async with asyncio.timeout(10):
        seen = -1
        while seen != echo.produced:  # until the handler is held up by what nobody reads
            seen = echo.produced
            await asyncio.sleep(0.05)
    await answers.aclose()


async def test_a_failing_source_fails_the_call_with_its_own_error(upstream: Upstream) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"a"
        raise errors.InvalidArgument("bad chunk", reason="CHUNK_INVALID")

    with pytest.raises(errors.InvalidArgument, match="bad chunk"):
        async for _ in upstream.stream(STREAM, source()):
            pass


async def test_a_stream_s_deadline_is_kept(upstream: Upstream) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        async for _ in upstream.stream(STREAM, endless(b"hang"), deadline=time.monotonic() + 0.1):
            pass


async def test_unknown_methods_are_unimplemented(upstream: Upstream) -> None:
    with pytest.raises(errors.Unimplemented):
        await upstream.unary("/test.v1.Echo/Nothing", b"")
    with pytest.raises(errors.Unimplemented):
        async for _ in upstream.stream("/test.v1.Nobody/Nothing", sent(b"")):
            pass


async def test_a_fallback_serves_every_other_method_of_its_service_unary_or_not(upstream: Upstream) -> None:
    reply = await upstream.unary("/test.v1.Other/Any", b"x")
    assert reply.payload == b"/test.v1.Other/Any x"
    answers = [answer async for answer in upstream.stream("/test.v1.Other/More", sent(b"x", b"y"))]
    assert answers == [b"/test.v1.Other/More x", b"/test.v1.Other/More y"]


async def test_many_calls_share_one_upstream(upstream: Upstream) -> None:
    replies = await asyncio.gather(*(upstream.unary(UNARY, str(n).encode()) for n in range(50)))
    assert [r.payload for r in replies] == [f"echo:{n}".encode() for n in range(50)]


async def test_a_closed_upstream_refuses(upstream: Upstream) -> None:
    await upstream.close()
    with pytest.raises(errors.Error):
        await upstream.unary(UNARY, b"")


async def test_unexpected_exceptions_tell_nothing(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    async with over_grpc(echo) as upstream:
        with pytest.raises(errors.Internal) as caught:
            await upstream.unary(UNARY, b"crash")
    assert "inner secret" not in str(caught.value)
    assert "inner secret" in caplog.text


async def test_nobody_listening_is_unavailable() -> None:
    for connector, address in ((MemoryNetwork(), "nowhere"), (GrpcConnector(), "127.0.0.1:1")):
        upstream = connector.connect(address)
        with pytest.raises(errors.Unavailable):
            await upstream.unary(UNARY, b"")
        await upstream.close()


async def test_closing_the_channel_under_a_call_is_unavailable_and_no_cancellation(echo: Echo) -> None:
    async with over_grpc(echo) as upstream:
        task = asyncio.create_task(upstream.unary(UNARY, b"hang"))
        await asyncio.wait_for(echo.begun.wait(), 5)
        await upstream.close()
        with pytest.raises(errors.Unavailable):
            await asyncio.wait_for(task, 5)
