"""HTTP calls to replicas through aiohttp: a pool of kept-alive connections per replica, bytes in and out."""

import ssl
import time

import aiohttp
from chassis import errors
from chassis.settings import MIB, ChannelSettings, client_tls_context
from chassis.telemetry import Telemetry, propagation
from chassis.transport.metadata import ONE_HOP
from chassis.transport.port import Metadata
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode
from yarl import URL

from aigw.domain.upstream import HttpReply

_ONE_HOP_TRACED = ONE_HOP | {propagation.TRACEPARENT}
_NOT_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_HOP_BACK = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade", b"server", b"date"}
)


class HttpConnector:
    """Opens HTTP upstreams with common settings."""

    def __init__(self, settings: ChannelSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._tls = client_tls_context(settings)
        self._telemetry = telemetry

    def connect(self, address: str) -> "AiohttpUpstream":
        """An upstream for a `host:port`; nothing is sent before its first call."""
        return AiohttpUpstream(
            address, self._tls, self._telemetry, max_bytes=self._settings.max_message_bytes
        )


class AiohttpUpstream:
    """`aigw.domain.upstream.HttpUpstream` for one address."""

    def __init__(
        self,
        address: str,
        tls: ssl.SSLContext | None,
        telemetry: Telemetry,
        *,
        max_bytes: int = 64 * MIB,
    ) -> None:
        self._address = address
        self._origin = f"{'https' if tls is not None else 'http'}://{address}"
        self._tls = tls
        self._max_bytes = max_bytes
        self._telemetry = telemetry
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(
        self,
        method: str,
        target: str,
        payload: bytes,
        *,
        headers: Metadata = (),
        deadline: float | None = None,
    ) -> HttpReply:
        """Makes one call; any status is an answer."""
        timeout = None
        if deadline is not None:
            timeout = deadline - time.monotonic()
            if timeout <= 0:
                raise self._too_late()
        span = self._start_span(method) if self._telemetry.tracing else None
        try:
            reply = await self._exchange(method, target, payload, _outgoing(headers, span), timeout)
        except errors.Error as error:
            if span is not None:
                span.set_attribute("error.type", error.code.name)
                span.set_status(StatusCode.ERROR, error.message)
            raise
        else:
            if span is not None:
                span.set_attribute("http.response.status_code", reply.status)
            return reply
        finally:
            if span is not None:
                span.end()

    async def _exchange(
        self, method: str, target: str, payload: bytes, headers: list[tuple[str, str]], timeout: float | None
    ) -> HttpReply:
        if self._closed:
            raise errors.Unavailable(
                f"the connection to {self._address} is closed", reason="CONNECTION_CLOSED"
            )
        session = self._session or self._open()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            try:
                return await self._attempt(session, method, target, payload, headers, deadline)
            except aiohttp.ServerDisconnectedError:
                # A kept-alive connection that the replica closed as we reached for it. Nothing was answered,
                # so it is tried once more; a replica that is really dead refuses the new connection.
                return await self._attempt(session, method, target, payload, headers, deadline)
        except TimeoutError as error:
            raise self._too_late() from error
        except (aiohttp.ClientError, OSError) as error:
            raise errors.Unavailable(
                f"{self._address} could not be reached over HTTP: {error or type(error).__name__}",
                reason="CONNECTION_FAILED",
                metadata={"address": self._address},
            ) from error

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        method: str,
        target: str,
        payload: bytes,
        headers: list[tuple[str, str]],
        deadline: float | None,
    ) -> HttpReply:
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        async with session.request(
            method,
            URL(self._origin + target, encoded=True),
            data=payload or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=left),
            allow_redirects=False,
            skip_auto_headers=_NOT_ADDED,
        ) as response:
            if not 200 <= response.status < 600:
                raise errors.Unavailable(
                    f"{self._address} answered with the impossible HTTP status {response.status}",
                    reason="ANSWER_INVALID",
                    metadata={"address": self._address},
                )
            body = await self._read(response)
            kept = tuple((k.lower(), v) for k, v in response.raw_headers if k.lower() not in _HOP_BACK)
            return HttpReply(response.status, kept, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body. Raises ResourceExhausted beyond the limit: an endless answer must not fill the memory."""
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self._max_bytes:
                raise errors.ResourceExhausted(
                    f"the answer of {self._address} is larger than {self._max_bytes} bytes "
                    "(the setting upstream.max_message_bytes)",
                    reason="ANSWER_TOO_LARGE",
                    metadata={"address": self._address, "limit": str(self._max_bytes)},
                )
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Closes the pool."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # keepalive_timeout stays below our servers' (75 s), so that it is we who close an idle connection.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0, ssl=self._tls or True)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self._session

    def _start_span(self, method: str) -> Span | None:
        if not trace.get_current_span().is_recording():
            return None
        span = self._telemetry.start_client_span(method)
        span.set_attribute("http.request.method", method)
        span.set_attribute("server.address", self._address)
        return span

    def _too_late(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            f"{self._address} did not answer in time over HTTP", reason="DEADLINE_EXCEEDED"
        )


def _outgoing(headers: Metadata, span: Span | None) -> list[tuple[str, str]]:
    """The caller's headers that go further, with the present trace context in place of the caller's."""
    current = span or trace.get_current_span()
    header = propagation.traceparent_of(current)
    dropped = ONE_HOP if header is None else _ONE_HOP_TRACED
    kept = [(key, value) for key, value in headers if isinstance(value, str) and key not in dropped]
    if header is not None:
        kept.append((propagation.TRACEPARENT, header))
    return kept
