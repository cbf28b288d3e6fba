"""Calls of other services' control planes: messages in and out, errors as ours, the trace context passed on."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from chassis import errors, status
from chassis.settings import ChannelSettings
from chassis.telemetry import propagation
from chassis.tls import channel_credentials
from chassis.transport.grpcio_upstream import channel_options
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


class Remote:
    """One service at one address. `title` names it in error texts."""

    def __init__(self, settings: ChannelSettings, title: str, timeout: float = 10.0) -> None:
        self._settings = settings
        self._title = title
        self._timeout = timeout
        options = channel_options(settings)
        if settings.secure:
            credentials = channel_credentials(settings)
            self._channel = grpc.aio.secure_channel(settings.address, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(settings.address, options)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def unary(self, method: str, request: Message, answer: type[M], timeout: float | None = None) -> M:
        """One call. `method` is `package.Service/Method`. Raises `chassis.errors.Error`."""
        call: Callable[..., Any] = self._channel.unary_unary(
            f"/{method}", request_serializer=_serialize, response_deserializer=answer.FromString
        )
        with self._errors():
            return await call(request, timeout=timeout or self._timeout, metadata=self._metadata())  # type: ignore[no-any-return]

    async def stream(
        self, method: str, request: Message, answer: type[M], timeout: float
    ) -> AsyncIterator[M]:
        """One call with a stream of answers."""
        call: Callable[..., Any] = self._channel.unary_stream(
            f"/{method}", request_serializer=_serialize, response_deserializer=answer.FromString
        )
        with self._errors():
            async for message in call(request, timeout=timeout, metadata=self._metadata()):
                yield message

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = _token(self._settings)
        bearer = (("authorization", f"Bearer {token}"),) if token else ()
        return (*propagation.injected(), *bearer)

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            failure = status.from_rpc_error(error)
            if isinstance(failure, errors.Unavailable | errors.DeadlineExceeded):
                raise type(failure)(
                    f"{self._title} at {self._settings.address} does not answer: {failure.message}",
                    reason=failure.reason,
                    metadata={"address": self._settings.address},
                    retry_after=failure.retry_after,
                ) from error
            raise failure from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _token(settings: ChannelSettings) -> str:
    if settings.token is not None:
        return settings.token.get_secret_value()
    if settings.token_file is None:
        return ""
    return _first_line(settings.token_file)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise errors.FailedPrecondition(
            f"the token file {path} cannot be read: {error.strerror}", reason="TOKEN_FILE_UNREADABLE"
        ) from error
