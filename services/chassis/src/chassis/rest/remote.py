"""Backend: a channel to a gRPC server somewhere else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from chassis.errors import Code
from chassis.rest.port import Call, Payload, RpcFailure

_DETAILS = "grpc-status-details-bin"


class Remote:
    """Sends calls over a `grpc.aio` channel, which the caller owns and closes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._callables: dict[tuple[str, bool], Any] = {}

    async def unary(self, call: Call, payload: Payload) -> bytes:
        """One answer. Raises `RpcFailure`."""
        under_way = self._start(call, payload, streaming=False)
        try:
            answer: bytes = await under_way
            call.initial.extend(_pairs(await under_way.initial_metadata()))
            call.trailing.extend(_pairs(await under_way.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            raise _failure(call, error) from error
        except asyncio.CancelledError as error:
            failure = _cancelled(error)
            if failure is error:
                raise
            raise failure from error
        finally:
            under_way.cancel()
        return answer

    async def stream(self, call: Call, payload: Payload) -> AsyncGenerator[bytes, None]:
        """Many answers. Raises `RpcFailure`."""
        under_way = self._start(call, payload, streaming=True)
        opening = asyncio.ensure_future(_note_initial(call, under_way))
        try:
            async for answer in under_way:
                if not call.started.is_set():
                    await opening
                yield answer
            call.trailing.extend(_pairs(await under_way.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            raise _failure(call, error) from error
        except asyncio.CancelledError as error:
            failure = _cancelled(error)
            if failure is error:
                raise
            raise failure from error
        finally:
            opening.cancel()
            under_way.cancel()

    def _start(self, call: Call, payload: Payload, *, streaming: bool) -> Any:
        key = (call.method, streaming)
        callable_ = self._callables.get(key)
        if callable_ is None:
            kind = f"{'stream' if call.client_streaming else 'unary'}_{'stream' if streaming else 'unary'}"
            callable_ = self._callables[key] = getattr(self._channel, kind)(call.method)
        timeout = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
        return callable_(payload, timeout=timeout, metadata=call.metadata)


async def _note_initial(call: Call, under_way: Any) -> None:
    call.initial.extend(_pairs(await under_way.initial_metadata()))
    call.started.set()


def _cancelled(error: asyncio.CancelledError) -> BaseException:
    """grpc cancels a call whose request iterator raised; only a cancelled task ends with CancelledError."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    return RpcFailure(status_pb2.Status(code=Code.CANCELLED.value, message="the call was cancelled"))


def _failure(call: Call, error: grpc.aio.AioRpcError) -> RpcFailure:
    if not call.initial:
        call.initial.extend(_pairs(error.initial_metadata()))
    trailing = _pairs(error.trailing_metadata())
    call.trailing.extend(trailing)
    return RpcFailure(status_of(error.code(), error.details() or "", trailing))


def status_of(
    code: grpc.StatusCode, message: str, trailing: list[tuple[str, str | bytes]]
) -> status_pb2.Status:
    """The Status of a call's end: the one in the trailing metadata if it is there and says the same code."""
    number = code.value[0]
    for key, value in trailing:
        if key == _DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
            if status.code == number:
                return status
    return status_pb2.Status(code=number, message=message)


def _pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or ()]
