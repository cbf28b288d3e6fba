"""The ASGI application: routes a request, runs the call, writes the answer or the failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from chassis import errors
from chassis.rest import bindings, headers, media, problem
from chassis.rest.bindings import Binding
from chassis.rest.decode import Decoder
from chassis.rest.descriptors import Descriptors, load_pool
from chassis.rest.encode import Encoder
from chassis.rest.exchange import Exchange, Send
from chassis.rest.inbound import Inbound, Receive
from chassis.rest.outbound import Framing, NdjsonFraming, Pump, RawFraming, SseFraming
from chassis.rest.port import Backend, Call, Payload
from chassis.rest.router import Match, Router
from chassis.rest.transcoder import Incoming, Transcoder

ROUTE = "penstock.route"  # scope key: the path template found, for the metrics and spans of middleware
_NOT_YET = b"\0not yet"  # compared by identity; no message
_GRACE = 0.05  # seconds that the first message may follow the initial metadata by and still come with it

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the transcoder behaves.

    - ``max_request_bytes``: the largest body, and the largest line of a streamed one; beyond it 413.
    - ``preserve_proto_field_names``: answers use the contract's names instead of lowerCamelCase; requests may
      always use either.
    - ``emit_default_values``: answers hold fields that have their default value.
    - ``enums_as_integers``: answers write enums as numbers.
    - ``ignore_unknown_fields``: unknown members of request bodies are skipped instead of refused.
    - ``ignored_query_parameters``: names that are no fields and no mistake, such as ``alt``.
    - ``forward_headers``: further HTTP headers, lower case, that become metadata under their own names.
    - ``default_timeout``: seconds for a call without ``Grpc-Timeout``; None waits as long as the client does.
    - ``serve_unannotated``: methods without an HTTP annotation are served as ``POST
      /package.Service/Method``.
    - ``keep_alive``: seconds of silence after which an event stream gets a comment line.
    - ``first_message_wait``: seconds to wait for a stream's first message (so that a failure there gets its
      own HTTP status) before the answer is begun without it.
    """

    max_request_bytes: int = 4 * 1024 * 1024
    preserve_proto_field_names: bool = False
    emit_default_values: bool = False
    enums_as_integers: bool = False
    ignore_unknown_fields: bool = False
    ignored_query_parameters: frozenset[str] = frozenset()
    forward_headers: frozenset[str] = frozenset()
    default_timeout: float | None = None
    serve_unannotated: bool = False
    keep_alive: float = 15.0
    first_message_wait: float = 1.0


def asgi(
    descriptors: Descriptors, services: Sequence[str], backend: Backend, options: Options | None = None
) -> ASGIApp:
    """An ASGI application that serves gRPC services as their ``google.api.http`` annotations say.

    ``descriptors`` is a FileDescriptorSet (or its bytes, or a DescriptorPool) with all imports, ``services``
    the full names to serve, ``backend`` what runs the calls: `InProcess` or `Remote`. Raises ValueError for a
    service that is not in the descriptors, an annotation that cannot be served, or two that claim the same
    path.
    """
    return Application(descriptors, services, backend, options or Options())


class Application:
    """See `asgi`."""

    def __init__(
        self, descriptors: Descriptors, services: Sequence[str], backend: Backend, options: Options
    ) -> None:
        pool = load_pool(descriptors)
        self._backend = backend
        self._options = options
        self._encoder = Encoder(
            pool,
            preserve_proto_field_names=options.preserve_proto_field_names,
            emit_default_values=options.emit_default_values,
            enums_as_integers=options.enums_as_integers,
        )
        decoder = Decoder(pool, ignore_unknown_fields=options.ignore_unknown_fields)
        self._router: Router[_Target] = Router()
        for binding in bindings.read_bindings(pool, services, unannotated=options.serve_unannotated):
            transcoder = Transcoder(binding, decoder, self._encoder, options.ignored_query_parameters)
            self._router.add(binding.http_method, binding.template, _Target(binding, transcoder))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise ValueError(f"the REST transcoder does not serve {scope['type']!r}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbound = Inbound(receive, self._options.max_request_bytes)
        exchange = Exchange(self._encoder, send, head_only=scope["method"] == "HEAD")
        try:
            await self._answer(scope, inbound, exchange)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not inbound.gone or task is None:
                raise
            task.uncancel()  # nobody is there to answer; the call itself has been cancelled on the way here
        except Exception as error:  # noqa: BLE001 — the outermost place: everything becomes a Status
            await exchange.fail(error)
        finally:
            inbound.close()

    async def _answer(self, scope: Scope, inbound: Inbound, exchange: Exchange) -> None:
        match = self._route(scope)
        binding, transcoder = match.target.binding, match.target.transcoder
        scope[ROUTE] = binding.template.text
        offered = self._negotiate(scope, binding)
        content_type = headers.find(scope["headers"], b"content-type") or ""
        encoding = headers.find(scope["headers"], b"content-encoding") or "identity"
        if encoding.strip().lower() != "identity":
            raise problem.unsupported_encoding(encoding)
        length = headers.find(scope["headers"], b"content-length")
        streamed = binding.method.client_streaming
        if length and length.isdigit() and int(length) > self._options.max_request_bytes and not streamed:
            raise problem.too_large(self._options.max_request_bytes)
        call = self._call(scope, binding)
        exchange.call = call
        incoming = Incoming(list(match.segments), scope["query_string"], content_type)
        if not streamed:
            await self._run(
                match.target, call, await transcoder.request(incoming, inbound), offered, exchange
            )
            return
        requests = _Requests(transcoder.requests(incoming, inbound))
        try:
            await self._run(match.target, call, requests.items(), offered, exchange)
        except Exception:
            if requests.failure is not None:  # whatever the servicer or the channel made of it
                raise requests.failure from None
            raise

    async def _run(
        self, target: _Target, call: Call, payload: Payload, offered: str, exchange: Exchange
    ) -> None:
        if target.binding.method.server_streaming:
            framing = _framing(target.binding, offered)
            async with aclosing(self._backend.stream(call, payload)) as answers:
                await self._stream(call, answers, target.transcoder, framing, exchange)
        else:
            answer = await self._backend.unary(call, payload)
            kind, body = target.transcoder.answer(answer)
            await exchange.send(200, kind, body, headers.from_metadata(call.initial, call.trailing))

    def _route(self, scope: Scope) -> Match[_Target]:
        path = _raw_path(scope)
        method = scope["method"]
        found = self._router.match(method, path)
        if isinstance(found, Match):
            return found
        if method == "HEAD" and "GET" in found.allowed:
            as_get = self._router.match("GET", path)
            if isinstance(as_get, Match) and not as_get.target.binding.method.server_streaming:
                return as_get
        if found.allowed:
            raise problem.method_not_allowed(method, path, found.allowed)
        raise problem.no_such_path(path)

    def _negotiate(self, scope: Scope, binding: Binding) -> str:
        if binding.raw_response:
            return ""
        accept = headers.find(scope["headers"], b"accept")
        types = media.ANSWERS_STREAM if binding.method.server_streaming else media.ANSWERS_UNARY
        chosen = media.choose(accept, types)
        if chosen is None:
            raise problem.not_acceptable(accept or "", types)
        return chosen

    def _call(self, scope: Scope, binding: Binding) -> Call:
        seconds = headers.timeout(headers.find(scope["headers"], b"grpc-timeout"))
        if seconds is None:
            seconds = self._options.default_timeout
        return Call(
            method=binding.method.path,
            metadata=headers.to_metadata(scope["headers"], self._options.forward_headers),
            deadline=None if seconds is None else time.monotonic() + seconds,
            peer=_peer(scope),
            client_streaming=binding.method.client_streaming,
        )

    async def _stream(
        self, call: Call, answers: Any, transcoder: Transcoder, framing: Framing, exchange: Exchange
    ) -> None:
        pump = Pump(answers, call.started, name=f"rest {call.method}")
        try:
            if isinstance(framing, RawFraming):
                first = await pump.next()
                if first is not None:
                    framing.content_type = transcoder.answer(first)[0]
            else:
                first = await _first(pump, call, self._options.first_message_wait)
            await exchange.start(framing, headers.from_metadata(call.initial, ()))
            if first is None:
                await exchange.end()
                return
            if first is not _NOT_YET:
                await exchange.chunk(framing.message(transcoder.answer(first)[1]))
            elif comment := framing.idle():
                await exchange.chunk(comment)
            await self._rest(pump, transcoder, framing, exchange)
        finally:
            await pump.close()

    async def _rest(self, pump: Pump, transcoder: Transcoder, framing: Framing, exchange: Exchange) -> None:
        comment = framing.idle()
        while True:
            try:
                answer = await pump.next(self._options.keep_alive if comment else None)
            except TimeoutError:
                await exchange.chunk(comment)
                continue
            if answer is None:
                await exchange.end()
                return
            await exchange.chunk(framing.message(transcoder.answer(answer)[1]))


@dataclass(frozen=True, slots=True)
class _Target:
    binding: Binding
    transcoder: Transcoder

    def __str__(self) -> str:
        return str(self.binding)


class _Requests:
    """The messages of a client stream; a mistake in them is kept, since it passes through the servicer."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.failure: Exception | None = None

    async def items(self) -> AsyncIterator[bytes]:
        """The messages. Raises `errors.Error` for a mistake in the body."""
        try:
            async for item in self._source:
                yield item
        except problem.HttpFailure as error:
            self.failure = error
            raise error.error from error
        except errors.Error as error:
            self.failure = error
            raise


def _framing(binding: Binding, chosen: str) -> Framing:
    if binding.raw_response:
        return RawFraming("application/octet-stream")
    if chosen == media.SSE:
        return SseFraming()
    return NdjsonFraming(media.NDJSON if chosen == media.JSON else chosen)


async def _first(pump: Pump, call: Call, wait: float) -> bytes | None:
    """The first message, None at the end, or `_NOT_YET` when the answer should begin without one."""
    try:
        async with asyncio.timeout(wait):
            await call.started.wait()
        return await pump.next(_GRACE)
    except TimeoutError:
        return _NOT_YET


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, below the place where the application is mounted."""
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"])
    root = quote(scope.get("root_path", "").rstrip("/"))
    if root and path.startswith(root):
        path = path[len(root) :]
    return path if path.startswith("/") else "/" + path


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    if not client:
        return "unknown"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
