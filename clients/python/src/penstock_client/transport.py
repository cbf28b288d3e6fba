"""One server as the client sees it: calls with deadline, credentials, trace context, retries and our errors.

Every call of the client goes through `Remote`, so what holds for one holds for all.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from penstock_client import status
from penstock_client.errors import InvalidArgument
from penstock_client.retry import NO_RETRIES, RetryPolicy, draw_jitter
from penstock_client.settings import Settings, Tls
from penstock_client.tracing import CallSpan, Spans

Response = TypeVar("Response", bound=Message)
Metadata = tuple[tuple[str, str | bytes], ...]

# Tensors and package chunks decide the size, and servers have their own limits.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.primary_user_agent", "penstock-client"),
)


class Token:
    """The bearer token, read again from its file when that changes."""

    def __init__(self, value: str | None, file: Path | None) -> None:
        self._value = value
        self._file = file
        self._stamp: tuple[int, int] | None = None

    def headers(self) -> Mapping[str, str]:
        """`authorization`, or nothing."""
        if self._file is not None:
            try:
                stat = self._file.stat()
                if self._stamp != (stamp := (stat.st_mtime_ns, stat.st_size)):
                    self._value, self._stamp = self._file.read_text(encoding="utf-8").strip(), stamp
            except OSError as error:
                raise InvalidArgument(
                    f"cannot read the token file {self._file}: {error.strerror}", reason="SETTINGS_INVALID"
                ) from error
        return {"authorization": f"Bearer {self._value}"} if self._value else {}


class Remote:
    """One service's gRPC face."""

    def __init__(
        self, title: str, address: str, settings: Settings, spans: Spans, retry: RetryPolicy
    ) -> None:
        self.origin = f"{title} at {address}"
        self._address = address
        self._tls = settings.tls
        self._token = Token(settings.token, settings.token_file)
        self._timeout = settings.timeout
        self._spans = spans
        self._retry = retry
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}

    async def unary(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        service: ServiceDescriptor,
        timeout: float | None = None,
        safe: bool = False,
        metadata: Metadata = (),
    ) -> Response:
        """One request, one answer. `safe` calls change nothing and are repeated under the retry policy."""
        policy = self._retry if safe else NO_RETRIES
        allowed = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + allowed
        call = self._call("unary_unary", service, method, response)
        attempt = 0
        with self._spans.call(service.full_name, method, self._address) as span:
            while True:
                attempt += 1
                try:
                    result: Response = await call(
                        request,
                        timeout=max(deadline - time.monotonic(), 0.001),
                        metadata=self._metadata(span, metadata),
                    )
                    return result
                except grpc.aio.AioRpcError as failure:
                    error = status.from_rpc_error(failure, origin=self.origin)
                    pause = policy.delay(error, attempt, jitter=draw_jitter())
                    if pause is None or time.monotonic() + pause >= deadline:
                        span.fail(error)
                        raise error from failure
                    span.retried(attempt, error)
                    await asyncio.sleep(pause)

    async def server_stream(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        service: ServiceDescriptor,
        timeout: float | None = None,
    ) -> AsyncIterator[Response]:
        """One request, answers until the server ends; without a deadline unless one is given."""
        call = self._call("unary_stream", service, method, response)
        with self._spans.call(service.full_name, method, self._address) as span:
            try:
                async for item in call(request, timeout=timeout, metadata=self._metadata(span, ())):
                    yield item
            except grpc.aio.AioRpcError as failure:
                error = status.from_rpc_error(failure, origin=self.origin)
                span.fail(error)
                raise error from failure

    async def client_stream(
        self,
        method: str,
        requests: AsyncIterable[Message],
        response: type[Response],
        *,
        service: ServiceDescriptor,
        timeout: float | None = None,
    ) -> Response:
        """Many requests, one answer."""
        call = self._call("stream_unary", service, method, response)
        with self._spans.call(service.full_name, method, self._address) as span:
            try:
                result: Response = await call(requests, timeout=timeout, metadata=self._metadata(span, ()))
                return result
            except grpc.aio.AioRpcError as failure:
                error = status.from_rpc_error(failure, origin=self.origin)
                span.fail(error)
                raise error from failure

    async def bidirectional(
        self,
        method: str,
        requests: AsyncIterable[Message],
        response: type[Response],
        *,
        service: ServiceDescriptor,
        timeout: float | None = None,
    ) -> AsyncIterator[Response]:
        """Requests and answers as they come; without a deadline unless one is given."""
        call = self._call("stream_stream", service, method, response)
        with self._spans.call(service.full_name, method, self._address) as span:
            try:
                async for item in call(requests, timeout=timeout, metadata=self._metadata(span, ())):
                    yield item
            except grpc.aio.AioRpcError as failure:
                error = status.from_rpc_error(failure, origin=self.origin)
                span.fail(error)
                raise error from failure

    def headers(self) -> dict[str, str]:
        """What a REST call to the same service carries."""
        return dict(self._token.headers())

    async def close(self) -> None:
        """Ends the connection; calls in flight are cancelled."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
            self._calls.clear()

    def _metadata(self, span: CallSpan, extra: Metadata) -> Metadata:
        return (*extra, *self._token.headers().items(), *span.headers().items())

    def _call(self, shape: str, service: ServiceDescriptor, method: str, response: type[Response]) -> Any:
        path = f"/{service.full_name}/{method}"
        call = self._calls.get(path)
        if call is None:
            descriptor = service.methods_by_name[method]
            if descriptor.output_type.full_name != response.DESCRIPTOR.full_name:
                raise TypeError(f"{path} answers {descriptor.output_type.full_name}, not {response.__name__}")
            if self._channel is None:
                self._channel = open_channel(self._address, self._tls)
            factory = getattr(self._channel, shape)
            call = self._calls[path] = factory(
                path, request_serializer=_serialize, response_deserializer=response.FromString
            )
        return call


def open_channel(address: str, tls: Tls) -> grpc.aio.Channel:
    """A channel to `host:port`, encrypted when `tls` says so."""
    if not tls.enabled:
        return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.ca_file),
        private_key=_pem(tls.key_file),
        certificate_chain=_pem(tls.cert_file),
    )
    return grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The same for HTTPS."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        raise InvalidArgument(f"cannot use the TLS files: {error}", reason="SETTINGS_INVALID") from error
    return context


def _pem(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {error.strerror}", reason="SETTINGS_INVALID") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
