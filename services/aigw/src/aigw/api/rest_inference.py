"""The Open Inference Protocol over HTTP under `/v2`: bodies go through as they are, binary tensors included.

A model is `{project}/{model}` in the path, also with `%2F`. Written straight on ASGI: no request or response
objects stand between the socket and the forwarder.
"""

import asyncio
import re
from collections.abc import Mapping

import orjson
from chassis import errors
from chassis.clock import Clock
from chassis.rest.headers import timeout as read_timeout
from chassis.rest.open_inference import (
    OpenInferenceRoute,
    caller_gone,
    expect,
    read_body,
    send_body,
    send_json,
)
from chassis.server.http import IDENTITY, ROUTE
from chassis.transport.port import Metadata
from starlette.types import Receive, Scope, Send

from aigw.api.grpc_inference import EXTENSIONS, repository_index
from aigw.app.exchange import Exchange
from aigw.app.forwarding import Forwarder
from aigw.app.routing import Router
from aigw.domain import names
from aigw.domain.health import ANSWERED, Replica
from aigw.domain.table import Face
from aigw.domain.upstream import HttpReply

WATCHED_AFTER = 0.25
"""Seconds after which a call is watched for its caller's going away."""

_MODEL_PATH = re.compile(
    rf"/v2/models/(?P<project>{names.ID})/(?P<model>{names.ID})"
    rf"(?:/versions/(?P<version>{names.VERSION}))?(?:/(?P<action>infer|ready|config|stats))?"
)
_ACTIONS: Mapping[str | None, tuple[str, str]] = {
    "infer": ("POST", "ModelInfer"),
    "ready": ("GET", "ModelReady"),
    "config": ("GET", "ModelConfig"),
    "stats": ("GET", "ModelStatistics"),
    None: ("GET", "ModelMetadata"),
}
_FORMS = "/v2/models/{project}/{model}[/versions/{version}][/infer|/ready|/config|/stats]"


class RestInference(OpenInferenceRoute):
    """Everything under `/v2`, as one route of the REST face."""

    path = "/v2"

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        *,
        clock: Clock,
        name: str,
        version: str,
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._monotonic = clock.monotonic
        self._name = name
        self._version = version

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/")
        match = _MODEL_PATH.fullmatch(path)
        if match is not None:
            await self._forward(match, scope, receive, send)
            return
        scope[ROUTE] = path if path in ("/v2", "/v2/health/live", "/v2/health/ready") else "/v2/*"
        if path == "/v2":
            expect(scope, "GET")
            await send_json(
                send, {"name": self._name, "version": self._version, "extensions": list(EXTENSIONS)}
            )
        elif path in ("/v2/health/live", "/v2/health/ready"):
            expect(scope, "GET")
            await send_json(send, {path.rpartition("/")[2]: True})
        elif path == "/v2/repository/index":
            expect(scope, "POST")
            await self._repository_index(scope, receive, send)
        else:
            raise _no_such_path(path)

    async def _forward(self, match: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        action = match["action"]
        verb, name = _ACTIONS[action]
        scope[ROUTE] = "/v2/models/{project}/{model}" + (f"/{action}" if action else "")
        expect(scope, verb)
        identity = scope.get(IDENTITY)
        started = self._monotonic()
        headers, wanted = _headers(scope)
        exchange = Exchange(
            Face.REST,
            name,
            f"{match['project']}/{match['model']}",
            match["version"] or "",
            metadata=headers,
            deadline=None,
            identity=identity.name if identity is not None else "",
            request_bytes=0,
            started=started,
            probe=name != "ModelInfer",
        )
        try:
            seconds = read_timeout(wanted)
            exchange.deadline = None if seconds is None else started + seconds
            body = await read_body(receive)
        except errors.Error as error:
            self._forwarder.refuse(exchange, error)
            raise
        exchange.request_bytes = len(body)
        attempt = _Attempt(exchange, verb, _target(scope), body)
        watch = _DisconnectWatch(receive)
        try:
            reply = await self._forwarder.unary(exchange, attempt)
        except errors.Error as error:
            if error is not attempt.error or attempt.refused is None:
                raise
            reply = attempt.refused  # a replica said so itself: its own words are the answer
        except asyncio.CancelledError:
            if not watch.gone:
                raise
            raise caller_gone() from None  # nobody is left to be told: it ends the request, and no more
        finally:
            watch.end()
        await send_body(send, reply.payload, reply.status, *reply.headers)

    async def _repository_index(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        ready_only = False
        if body.strip():
            try:
                request = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                raise errors.InvalidArgument(
                    f"the body is not JSON: {error}", reason="JSON_MALFORMED"
                ) from error
            ready_only = isinstance(request, dict) and request.get("ready") is True
        index = repository_index(self._router, ready_only=ready_only)
        await send_json(
            send, [{"name": n, "version": v, "state": state, "reason": why} for n, v, state, why in index]
        )


class _Attempt:
    """One request, sent to whichever replica the forwarder picks.

    Any status below 500 is the answer. Others are failures of the replica that the policy may try
    elsewhere; the last such answer is kept, to be given to the caller as it is.
    """

    __slots__ = ("_body", "_exchange", "_target", "_verb", "error", "refused")

    def __init__(self, exchange: Exchange, verb: str, target: str, body: bytes) -> None:
        self._exchange = exchange
        self._verb = verb
        self._target = target
        self._body = body
        self.refused: HttpReply | None = None
        self.error: errors.Error | None = None

    async def __call__(self, replica: Replica, deadline: float) -> HttpReply:
        """Makes one attempt."""
        assert replica.http is not None
        self.refused = None
        exchange = self._exchange
        reply = await replica.http.send(
            self._verb, self._target, self._body, headers=exchange.metadata, deadline=deadline
        )
        code = reply.code
        if code is not errors.Code.OK:
            if reply.status >= 500 or reply.status == 429:
                self.refused = reply
                self.error = errors.error_class(code)(
                    f"endpoint {replica.id} answered HTTP {reply.status}",
                    reason=ANSWERED,
                    metadata={"endpoint": replica.id, "http_status": str(reply.status)},
                )
                raise self.error
            exchange.code = code
        return reply


class _DisconnectWatch:
    """Cancels the task that made it if the caller goes away, so that the replica stops working for nobody.

    HTTP servers tell a disconnect only to who asks. Asking costs a task, so only long calls pay for it.
    """

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False
        self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            self._task.cancel()

    def end(self) -> None:
        """Stops watching."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone:
            self._task.uncancel()


def _headers(scope: Scope) -> tuple[Metadata, str | None]:
    """The request's headers as text, and the deadline header among them."""
    wanted = None
    headers = []
    for key, value in scope["headers"]:
        if key == b"grpc-timeout":
            wanted = value.decode("latin-1")
        else:
            headers.append((key.decode("latin-1"), value.decode("latin-1")))
    return tuple(headers), wanted


def _target(scope: Scope) -> str:
    """Path and query as they came over the wire, not decoded and encoded again."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _no_such_path(path: str) -> errors.NotFound:
    parts = path.split("/")
    if path.startswith("/v2/models/") and len(parts) == 4:
        text = f"{parts[3]!r} is no model of the gateway: through it a model is named project/model; "
        text += f"paths are {_FORMS}"
    else:
        text = f"there is nothing at {path}; paths are {_FORMS}, /v2, /v2/health/live, /v2/health/ready, "
        text += "/v2/repository/index"
    return errors.NotFound(text, reason="PATH_NOT_FOUND", metadata={"path": path[:256]})
