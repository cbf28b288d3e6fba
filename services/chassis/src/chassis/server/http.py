"""ASGI middleware around every HTTP request of a service: observation, authentication, the last error net."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from google.protobuf import json_format
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode
from starlette.exceptions import HTTPException

from chassis import auth, errors, status
from chassis.auth import Authenticator
from chassis.rest.problem import BodyTooLarge
from chassis.telemetry import Telemetry
from chassis.tls import peer_names

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTE = "penstock.route"  # scope key: whoever routes puts the path template here, for metrics and spans
IDENTITY = "penstock.identity"  # scope key: who calls, for handlers of the service's own routes
_PEER = "penstock.peer"
_UNMEASURED = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class WithPeer:
    """Tells an application who is at the other end of a mutual-TLS connection."""

    def __init__(self, app: App, certificate: dict[str, object]) -> None:
        self._app = app
        self._names = peer_names(certificate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds the certificate's names to the scope."""
        scope[_PEER] = self._names
        await self._app(scope, receive, send)


class ObservationMiddleware:
    """A server span (when sampled) and a duration by method, route template and status."""

    def __init__(self, app: App, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Observes one request."""
        if scope["type"] != "http" or scope["path"] in _UNMEASURED:
            await self._app(scope, receive, send)
            return
        telemetry = self._telemetry
        code = 500
        span, token = self._begin(scope) if telemetry.tracing else (None, None)
        telemetry.http.active += 1
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            telemetry.http.active -= 1
            method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
            telemetry.http.observe(method, _route(scope), code, time.perf_counter() - started)
            if token is not None:
                _end(span, token, scope, code)

    def _begin(self, scope: Scope) -> tuple[Span, Any]:
        headers = dict(scope["headers"])
        traceparent = _text(headers.get(b"traceparent"))
        span = self._telemetry.start_server_span(
            scope["method"], traceparent, _text(headers.get(b"tracestate")) if traceparent else None
        )
        if span.is_recording():
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("url.path", scope["path"])
            span.set_attribute("url.scheme", scope["scheme"])
            span.set_attribute("client.address", scope["client"][0] if scope.get("client") else "")
        return span, otel_context.attach(trace.set_span_in_context(span))


class AuthenticationMiddleware:
    """Refuses requests that cannot say who they are; the others' identity is in the scope and the context."""

    def __init__(self, app: App, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticates one request."""
        authenticator = self._authenticator
        if (
            scope["type"] != "http"
            or not authenticator.enabled
            or scope["path"] in authenticator.exempt_paths
        ):
            await self._app(scope, receive, send)
            return
        given = next((value for key, value in scope["headers"] if key == b"authorization"), None)
        try:
            identity = authenticator.authenticate(_text(given), scope.get(_PEER, ()))
        except errors.Unauthenticated as error:
            await respond(send, error, [(b"www-authenticate", b"Bearer")])
            return
        scope[IDENTITY] = identity
        token = auth.set_current_identity(identity)
        try:
            await self._app(scope, receive, send)
        finally:
            auth.reset_current_identity(token)


class ErrorMiddleware:
    """Errors that escape a route become Status bodies; the unexpected is logged and told generically."""

    def __init__(self, app: App, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guards one request."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BodyTooLarge as error:
            if begun:
                raise
            await respond(send, error, [*error.headers], status_code=error.http_status)
        except errors.Error as error:
            if begun:
                raise  # too late for a status: the connection is cut, which the caller notices
            await respond(send, error)
        except HTTPException as error:
            if begun:
                raise
            await respond(send, _of_http(error), _headers(error), status_code=error.status_code)
        except Exception as error:
            self._telemetry.unexpected.labels("http").inc()
            self._telemetry.logger.error("unexpected error in a request", path=scope["path"], exc_info=error)
            if begun:
                raise
            await respond(send, status.unknown(error))


async def respond(
    send: Send,
    error: errors.Error,
    headers: list[tuple[bytes, bytes]] | None = None,
    *,
    status_code: int | None = None,
) -> None:
    """Sends an error as the Status body every face answers with."""
    body = orjson.dumps(json_format.MessageToDict(status.to_status(error)))
    retry = (
        [(b"retry-after", str(max(1, round(error.retry_after))).encode())]
        if error.retry_after is not None
        else []
    )
    await send(
        {
            "type": "http.response.start",
            "status": status_code or error.code.http_status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *retry,
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _of_http(error: HTTPException) -> errors.Error:
    """What Starlette's routing (405) or a route of the service says, as one of ours."""
    code = next((c for c in errors.Code if c.http_status == error.status_code), errors.Code.UNKNOWN)
    if error.status_code == 405:
        code = errors.Code.UNIMPLEMENTED
    return errors.error_class(code)(str(error.detail), reason=f"HTTP_{error.status_code}")


def _headers(error: HTTPException) -> list[tuple[bytes, bytes]]:
    return [(key.lower().encode(), value.encode()) for key, value in (error.headers or {}).items()]


def _route(scope: Scope) -> str:
    template = scope.get(ROUTE) or getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) and template else "_OTHER"


def _end(span: Span | None, token: Any, scope: Scope, code: int) -> None:
    assert span is not None
    if span.is_recording():
        route = _route(scope)
        if route != "_OTHER":
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", code)
        if code >= 500:
            span.set_status(StatusCode.ERROR)
    span.end()
    otel_context.detach(token)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
