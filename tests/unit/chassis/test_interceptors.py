"""Each interceptor on its own and all together, around plain functions."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis import auth, errors, status
from chassis.auth import Authenticator
from chassis.interceptors import (
    AuthenticationInterceptor,
    DeadlineInterceptor,
    DrainInterceptor,
    ErrorInterceptor,
    MethodInfo,
    ObservationInterceptor,
    ValidationInterceptor,
    intercepted,
)
from chassis.settings import AuthSettings
from chassis.telemetry import Telemetry
from google.protobuf import empty_pb2
from google.rpc import status_pb2
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from pydantic import SecretStr

UNARY = MethodInfo("test.v1.Test/Get", request_streaming=False, response_streaming=False)
STREAM = MethodInfo("test.v1.Test/WatchThings", request_streaming=False, response_streaming=True)


class Aborted(Exception):
    """What the context raises, as grpc.aio's does."""


class Context:
    """As much of a grpc.aio context as interceptors use."""

    def __init__(self, remaining: float | None = None, **metadata: str) -> None:
        self.remaining = remaining
        self.metadata = tuple(metadata.items())
        self.sent: tuple[grpc.StatusCode, str, Any] | None = None

    def time_remaining(self) -> float | None:
        return self.remaining

    def invocation_metadata(self) -> Any:
        return self.metadata

    def trailing_metadata(self) -> Any:
        return (("kept", "yes"),)

    def peer(self) -> str:
        return "test"

    async def abort(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        self.sent = (code, details, trailing)
        raise Aborted


async def answer(request: Any, context: Any) -> Any:
    return request


async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
    yield 1
    yield 2


async def collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_the_first_interceptor_is_outermost() -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def unary(self, method: MethodInfo, proceed: Any) -> Any:
            async def behave(request: Any, context: Any) -> Any:
                order.append(self.name)
                return await proceed(request, context)

            return behave

        def stream(self, method: MethodInfo, proceed: Any) -> Any:
            async def behave(request: Any, context: Any) -> AsyncIterator[Any]:
                order.append(self.name)
                async for item in proceed(request, context):
                    yield item

            return behave

    chain = [Named("a"), Named("b")]
    handler = grpc.unary_unary_rpc_method_handler(answer)
    assert await intercepted("/test.v1.Test/Get", handler, chain).unary_unary("x", Context()) == "x"
    handler = grpc.unary_stream_rpc_method_handler(answers)
    wrapped = intercepted("/test.v1.Test/Watch", handler, chain)
    assert await collect(wrapped.unary_stream("x", Context())) == [1, 2]
    assert order == ["a", "b", "a", "b"]


async def test_client_and_bidirectional_streams_are_wrapped_too() -> None:
    async def total(requests: Any, context: Any) -> int:
        return sum([n async for n in requests])

    async def doubled(requests: Any, context: Any) -> AsyncIterator[int]:
        async for n in requests:
            yield 2 * n

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    chain = [ErrorInterceptor(), DeadlineInterceptor(5)]
    wrapped = intercepted("/t.T/Sum", grpc.stream_unary_rpc_method_handler(total), chain)
    assert await wrapped.stream_unary(numbers(), Context()) == 3
    wrapped = intercepted("/t.T/Double", grpc.stream_stream_rpc_method_handler(doubled), chain)
    assert await collect(wrapped.stream_stream(numbers(), Context())) == [2, 4]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.NotFound("gone", reason="GONE"), grpc.StatusCode.NOT_FOUND, "gone"),
        (KeyError("secret"), grpc.StatusCode.INTERNAL, "internal error"),
    ],
    ids=["ours", "unexpected"],
)
async def test_errors_end_the_call_with_a_status(error: Exception, code: grpc.StatusCode, text: str) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise error

    async def fail_later(request: Any, context: Any) -> AsyncIterator[Any]:
        yield 1
        raise error

    unary, stream = Context(), Context()
    with pytest.raises(Aborted):
        await ErrorInterceptor().unary(UNARY, fail)(None, unary)
    with pytest.raises(Aborted):
        await collect(ErrorInterceptor().stream(STREAM, fail_later)(None, stream))
    for context in (unary, stream):
        assert context.sent is not None
        assert context.sent[:2] == (code, text)
        trailing = dict(context.sent[2])
        assert trailing["kept"] == "yes"
        assert status_pb2.Status.FromString(trailing[status.DETAILS_KEY]).message == text


async def test_an_expired_deadline_is_not_begun() -> None:
    interceptor = DeadlineInterceptor(5)
    with pytest.raises(errors.DeadlineExceeded, match="had passed"):
        await interceptor.unary(UNARY, answer)(None, Context(remaining=0.0))
    with pytest.raises(errors.DeadlineExceeded, match="had passed"):
        await collect(interceptor.stream(STREAM, answers)(None, Context(remaining=0.0)))
    assert await interceptor.unary(UNARY, answer)("x", Context(remaining=9.0)) == "x"


async def test_a_timeout_inside_the_servicer_is_not_taken_for_the_deadline() -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await DeadlineInterceptor(5).unary(UNARY, fail)(None, Context())


async def test_the_identity_is_there_for_the_call_only() -> None:
    interceptor = AuthenticationInterceptor(Authenticator(AuthSettings(tokens=SecretStr("a:t"))))

    async def who(request: Any, context: Any) -> Any:
        identity = auth.current_identity()
        return identity.name if identity else None

    assert await interceptor.unary(UNARY, who)(None, Context(authorization="Bearer t")) == "a"
    assert auth.current_identity() is None
    with pytest.raises(errors.Unauthenticated):
        await interceptor.unary(UNARY, who)(None, Context())
    with pytest.raises(errors.Unauthenticated):
        await collect(interceptor.stream(STREAM, answers)(None, Context()))


async def test_exempt_services_are_asked_nothing() -> None:
    settings = AuthSettings(tokens=SecretStr("a:t"), exempt_services=("test.v1.Test",))
    interceptor = AuthenticationInterceptor(Authenticator(settings))
    assert interceptor.unary(UNARY, answer) is answer
    assert interceptor.stream(STREAM, answers) is answers


async def test_each_message_of_a_stream_is_validated() -> None:
    method = MethodInfo("t.T/Put", request_streaming=True, response_streaming=False)

    async def count(requests: Any, context: Any) -> int:
        return len([r async for r in requests])

    async def sent(*names: str) -> AsyncIterator[Any]:
        for name in names:
            yield pb.GetEndpointRequest(name=name)

    behave = ValidationInterceptor().unary(method, count)
    good = "projects/p/models/m/endpoints/e"
    assert await behave(sent(good, good), None) == 2
    with pytest.raises(errors.InvalidArgument) as caught:
        await behave(sent(good, "bad"), None)
    assert [v.field for v in caught.value.violations] == ["name"]


async def test_messages_without_rules_pass() -> None:
    ValidationInterceptor().check(empty_pb2.Empty())


async def test_a_watch_ends_when_the_service_drains_and_other_streams_do_not() -> None:
    drain, waiting = DrainInterceptor(), asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield 1
        waiting.set()
        await asyncio.Event().wait()

    watch = asyncio.create_task(collect(drain.stream(STREAM, endless)(None, Context())))
    await waiting.wait()
    drain.end_watches()
    with pytest.raises(errors.Unavailable, match="shutting down"):
        await watch
    with pytest.raises(errors.Unavailable):
        await collect(drain.stream(STREAM, answers)(None, Context()))
    download = MethodInfo("test.v1.Test/Download", request_streaming=False, response_streaming=True)
    assert drain.stream(download, answers) is answers


async def test_a_caller_that_goes_away_is_no_drain() -> None:
    drain, waiting = DrainInterceptor(), asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        waiting.set()
        await asyncio.Event().wait()
        yield 1

    watch = asyncio.create_task(collect(drain.stream(STREAM, endless)(None, Context())))
    await waiting.wait()
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def test_only_what_nobody_expected_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry("test", "0")
    observation = ObservationInterceptor(telemetry)

    def failing(error: BaseException) -> Any:
        async def fail(request: Any, context: Any) -> Any:
            raise error

        return observation.unary(UNARY, fail)

    with caplog.at_level(logging.INFO), pytest.raises(errors.NotFound):
        await failing(errors.NotFound("x", reason="X"))(None, Context())
    with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
        await failing(asyncio.CancelledError())(None, Context())
    assert caplog.text == ""
    with pytest.raises(KeyError):
        await failing(KeyError("inner"))(None, Context())
    assert "inner" in caplog.text
    text = telemetry.scrape()[0].decode()
    for code in ("NOT_FOUND", "CANCELLED", "INTERNAL"):
        labels = f'rpc_method="test.v1.Test/Get",rpc_response_status_code="{code}"'
        assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1.0" in text
    assert 'chassis_unexpected_errors_total{where="test.v1.Test/Get"} 1.0' in text
    assert telemetry.rpc_server.method(UNARY.name).active == 0
