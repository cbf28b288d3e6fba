"""Calls of other services' control planes: messages in and out, errors as ours."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import grpc
from chassis import errors, status
from chassis.channel import open_channel
from chassis.settings import ChannelSettings
from chassis.telemetry import Telemetry
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


class Remote:
    """One service at one address. `title` names it in error texts. Timeouts in seconds."""

    def __init__(self, channel: grpc.aio.Channel, title: str, address: str, timeout: float = 10.0) -> None:
        self._channel = channel
        self._title = title
        self._address = address
        self._timeout = timeout

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, settings: ChannelSettings, title: str, telemetry: Telemetry | None = None
    ) -> "AsyncIterator[Remote]":
        """A remote whose channel lives as long as the context."""
        async with open_channel(settings, telemetry) as channel:
            yield cls(channel, title, settings.address)

    async def unary(self, method: str, request: Message, answer: type[M], timeout: float | None = None) -> M:
        """One call. `method` is `package.Service/Method`. Raises `chassis.errors.Error`."""
        call: Callable[..., Any] = self._channel.unary_unary(
            f"/{method}", request_serializer=_serialize, response_deserializer=answer.FromString
        )
        with self._errors():
            message: M = await call(request, timeout=timeout or self._timeout)
        return message

    async def stream(
        self, method: str, request: Message, answer: type[M], timeout: float
    ) -> AsyncIterator[M]:
        """One call with a stream of answers."""
        call: Callable[..., Any] = self._channel.unary_stream(
            f"/{method}", request_serializer=_serialize, response_deserializer=answer.FromString
        )
        with self._errors():
            async for message in call(request, timeout=timeout):
                yield message

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            failure = status.from_rpc_error(error)
            if isinstance(failure, errors.Unavailable | errors.DeadlineExceeded):
                raise type(failure)(
                    f"{self._title} at {self._address} does not answer: {failure.message}",
                    reason=failure.reason,
                    metadata={"address": self._address},
                    retry_after=failure.retry_after,
                ) from error
            raise failure from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
