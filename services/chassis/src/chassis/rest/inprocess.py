"""Backend: servicers in this process, called as a `grpc.aio` server would call them.

The invoke pipeline is grpc's own: the interceptors given here are the very `grpc.aio.ServerInterceptor`
objects that the gRPC server has, run in the same order around the same handlers, so that authentication,
deadlines, validation, errors, tracing and metrics are one code for both faces. Payloads pass the handler's
own (de)serialisers, so the transcoder's pool and the servicer's generated classes may be different ones.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.rpc import status_pb2

from chassis import errors, status
from chassis.errors import Code
from chassis.rest.context import Context, SyncContext
from chassis.rest.port import Call, Payload, RpcFailure

_log = logging.getLogger(__name__)
_END = object()


class _Details(NamedTuple):
    """`grpc.HandlerCallDetails` as interceptors read it."""

    method: str
    invocation_metadata: Any


class InProcess:
    """Runs calls on servicers added with their generated ``add_XServicer_to_server`` functions."""

    def __init__(self, *, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Any] = {}
        self._generic: list[Any] = []

    def add_servicer(self, add_to_server: Callable[[Any, Any], None], servicer: Any) -> None:
        """Add a servicer: ``backend.add_servicer(add_GreeterServicer_to_server, Greeter())``."""
        add_to_server(servicer, self)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Part of the server that generated code expects."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Part of the server that generated code expects."""
        for name, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{name}"] = handler

    async def unary(self, call: Call, payload: Payload) -> bytes:
        """One answer. Raises `RpcFailure`."""
        context = Context(call)
        try:
            async with _within(call):
                handler = await self._find(call, context)
                request = _request(handler, payload, context)
                behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
                response = await _invoke(behaviour, request, context)
            context.raise_for_code()
            return _serialise(handler, response)
        except BaseException as error:
            failure = _failure(error, call, context)
            if failure is error:
                raise
            raise failure from error
        finally:
            context.finish()

    async def stream(self, call: Call, payload: Payload) -> AsyncGenerator[bytes, None]:
        """Many answers. Raises `RpcFailure`."""
        context = Context(call)
        try:
            async with _within(call):
                handler = await self._find(call, context)
                request = _request(handler, payload, context)
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            async with aclosing(_responses(behaviour, request, context)) as responses:
                while True:
                    # the deadline is set anew for each step, because it must not span a yield
                    async with _within(call):
                        response = await anext(responses, _END)
                    if response is _END:
                        break
                    call.started.set()
                    yield _serialise(handler, response)
            context.raise_for_code()
        except GeneratorExit:
            context.note_cancelled()
            raise
        except BaseException as error:
            failure = _failure(error, call, context)
            if failure is error:
                raise
            raise failure from error
        finally:
            context.finish()

    async def _find(self, call: Call, context: Context) -> Any:
        async def registered(details: Any) -> Any:
            handler = self._handlers.get(details.method)
            if handler is not None:
                return handler
            return next((h for g in self._generic if (h := g.service(details)) is not None), None)

        continuation: Callable[[Any], Awaitable[Any]] = registered
        for interceptor in reversed(self._interceptors):
            continuation = partial(interceptor.intercept_service, continuation)
        handler = await continuation(_Details(call.method, context.invocation_metadata()))
        if handler is None:
            raise errors.Unimplemented(
                f"{call.method} is not served here",
                reason="METHOD_NOT_SERVED",
                metadata={"method": call.method},
            )
        return handler


def _within(call: Call) -> asyncio.Timeout:
    if call.deadline is None:
        return asyncio.timeout(None)
    return asyncio.timeout(max(0.0, call.deadline - time.monotonic()))


def _request(handler: Any, payload: Payload, context: Context) -> Any:
    if isinstance(payload, bytes):
        return _deserialise(handler, payload)

    async def each() -> AsyncIterator[Any]:
        async for item in payload:
            yield _deserialise(handler, item)

    requests = each()
    context.requests = requests
    return requests


def _deserialise(handler: Any, payload: bytes) -> Any:
    return payload if handler.request_deserializer is None else handler.request_deserializer(payload)


def _serialise(handler: Any, response: Any) -> bytes:
    if handler.response_serializer is None:
        return bytes(response)
    payload: bytes = handler.response_serializer(response)
    return payload


async def _invoke(behaviour: Callable[[Any, Any], Any], request: Any, context: Context) -> Any:
    if _is_async(behaviour):
        return await behaviour(request, context)
    return await asyncio.to_thread(behaviour, _for_thread(request), SyncContext(context))


async def _responses(
    behaviour: Callable[[Any, Any], Any], request: Any, context: Context
) -> AsyncGenerator[Any, None]:
    """The responses of a streaming handler in any of the three forms grpc.aio takes."""
    if inspect.isasyncgenfunction(behaviour):
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response
    elif _is_async(behaviour):
        async with aclosing(_written(behaviour, request, context)) as written:
            async for response in written:
                yield response
    else:
        produced = await asyncio.to_thread(behaviour, _for_thread(request), SyncContext(context))
        if hasattr(produced, "__aiter__"):
            async for response in produced:
                yield response
            return
        iterator = iter(produced)
        while (response := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield response


async def _written(
    behaviour: Callable[[Any, Any], Any], request: Any, context: Context
) -> AsyncGenerator[Any, None]:
    """The responses of a handler that writes them to its context."""
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
    context.writer = queue.put

    async def run() -> None:
        try:
            await behaviour(request, context)
        finally:
            await queue.put(_END)

    task = asyncio.create_task(run(), name=f"rest {context.call.method}")
    try:
        while (response := await queue.get()) is not _END:
            yield response
        await task
    finally:
        if not task.done():
            task.cancel()
            while not queue.empty():
                queue.get_nowait()
            await asyncio.gather(task, return_exceptions=True)


def _is_async(behaviour: Any) -> bool:
    if inspect.isfunction(behaviour) or inspect.ismethod(behaviour) or isinstance(behaviour, partial):
        return inspect.iscoroutinefunction(behaviour)
    return inspect.iscoroutinefunction(behaviour) or inspect.iscoroutinefunction(type(behaviour).__call__)


def _for_thread(request: Any) -> Any:
    """A request iterator that a thread can walk; single requests pass as they are."""
    if not hasattr(request, "__anext__"):
        return request
    loop = asyncio.get_running_loop()

    def each() -> Iterator[Any]:
        while True:
            item = asyncio.run_coroutine_threadsafe(_next(request), loop).result()
            if item is _END:
                return
            yield item

    return each()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)


def _failure(error: BaseException, call: Call, context: Context) -> BaseException:
    """What the caller of the backend gets for whatever ended a handler."""
    if context.aborted:
        return RpcFailure(context.failure_status())
    if isinstance(error, RpcFailure):
        return error
    if (
        isinstance(error, TimeoutError)
        and call.deadline is not None
        and call.deadline <= time.monotonic() + 0.005
    ):
        context.note_cancelled()
        return RpcFailure(status_pb2.Status(code=Code.DEADLINE_EXCEEDED.value, message="Deadline Exceeded"))
    if isinstance(error, asyncio.CancelledError):
        context.note_cancelled()
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            return RpcFailure(status_pb2.Status(code=Code.CANCELLED.value, message="the call was cancelled"))
        return error
    if isinstance(error, errors.Error):
        call.trailing.extend(error.trailing)
        return RpcFailure(status.to_status(error))
    if not isinstance(error, Exception):
        return error
    if context.code():  # generated code sets UNIMPLEMENTED and then raises NotImplementedError
        return RpcFailure(context.failure_status())
    _log.exception("%s failed", call.method, exc_info=error)
    return RpcFailure(status.to_status(status.unknown(error)))
