"""Wrapping of gRPC method handlers in interceptors, once, at registration."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from chassis import errors

Context = Any  # grpc.aio.ServicerContext, or the REST face's stand-in for it
UnaryBehaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncIterator[Any]]
Behaviour = UnaryBehaviour | StreamBehaviour


@dataclass(frozen=True)
class MethodInfo:
    """The method a handler serves. `name` is `package.Service/Method`; the flags say which sides stream."""

    name: str
    request_streaming: bool
    response_streaming: bool

    @property
    def service(self) -> str:
        """The full name of the service."""
        return self.name.rpartition("/")[0]


class Interceptor(Protocol):
    """Wraps behaviours. The first argument of a behaviour is a message, or an async iterator of messages."""

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """A behaviour with one answer."""
        ...

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """A behaviour with a stream of answers."""
        ...


def intercepted(
    method: str, handler: "grpc.RpcMethodHandler[Any, Any]", interceptors: Sequence[Interceptor]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The handler with the interceptors around it, the first one outermost."""
    info = MethodInfo(method.removeprefix("/"), handler.request_streaming, handler.response_streaming)
    coding = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if not info.response_streaming:
        unary: Any = handler.stream_unary if info.request_streaming else handler.unary_unary
        if not inspect.iscoroutinefunction(unary):
            unary = _awaited(info.name, unary)
        for interceptor in reversed(interceptors):
            unary = interceptor.unary(info, unary)
        make = grpc.stream_unary_rpc_method_handler if info.request_streaming else None
        return (make or grpc.unary_unary_rpc_method_handler)(unary, **coding)
    stream: Any = handler.stream_stream if info.request_streaming else handler.unary_stream
    if not inspect.isasyncgenfunction(stream):
        stream = _iterated(info.name, stream)
    for interceptor in reversed(interceptors):
        stream = interceptor.stream(info, stream)
    makes = grpc.stream_stream_rpc_method_handler if info.request_streaming else None
    return (makes or grpc.unary_stream_rpc_method_handler)(stream, **coding)


def metadata_value(context: Context, key: str) -> str | None:
    """The first text value of a metadata key of the call."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else None
    return None


def _awaited(method: str, plain: Callable[[Any, Context], Any]) -> UnaryBehaviour:
    """A servicer method that is no coroutine function: a wrapped one, or one that was not overridden."""

    async def behave(request: Any, context: Context) -> Any:
        answer = _called(method, plain, request, context)
        return await answer if inspect.isawaitable(answer) else answer

    return behave


def _iterated(method: str, function: Callable[[Any, Context], Any]) -> StreamBehaviour:
    """A streaming method written as a coroutine (`context.write`), or as a plain function."""

    async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
        answer = _called(method, function, request, context)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is not None:
            async for item in answer:
                yield item

    return behave


def _called(method: str, function: Callable[[Any, Context], Any], request: Any, context: Context) -> Any:
    """Generated servicers raise NotImplementedError for what the contract has and a servicer does not."""
    try:
        return function(request, context)
    except NotImplementedError as error:
        raise errors.Unimplemented(
            f"{method} is not available in this version of Penstock",
            reason="METHOD_NOT_AVAILABLE",
            metadata={"method": method},
        ) from error
