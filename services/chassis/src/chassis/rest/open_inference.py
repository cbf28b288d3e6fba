"""The Open Inference Protocol over HTTP, as far as it is the same for whoever answers it: everything under
`/v2` is one route, verbs are checked, and errors have the protocol's form with our Status beside.

What the paths mean is the service's: MDS runs the model, AIGW forwards.
"""

from abc import abstractmethod
from typing import Any

import orjson
from google.protobuf import json_format
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from chassis import errors, status
from chassis.rest.problem import BodyTooLarge

JSON = (b"content-type", b"application/json")
Header = tuple[bytes, bytes]


class OpenInferenceRoute(BaseRoute):
    """Everything under `/v2`, as one route of the REST face: model names may hold a slash, which path
    templates do not take.
    """

    path = "/v2"

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises `chassis.errors.Error` before anything is sent."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is ours."""
        path = scope["path"]
        if scope["type"] == "http" and (path == "/v2" or path.startswith("/v2/")):
            return Match.FULL, {}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Nothing here is looked up by name."""
        raise NotImplementedError

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; errors in the protocol's form."""
        try:
            await self.answer(scope, receive, send)
        except errors.Error as error:
            await send_error(send, error)


def expect(scope: Scope, verb: str) -> None:
    """Raises what becomes 405 for another verb; HEAD goes where GET goes."""
    method = scope["method"]
    if method != verb and not (verb == "GET" and method == "HEAD"):
        error = errors.Unimplemented(
            f"{method} is not allowed for {scope['path']}; use {verb}", reason="METHOD_NOT_ALLOWED"
        )
        error.trailing = (("allow", verb),)
        raise error


def caller_gone() -> errors.Cancelled:
    """The caller closed the connection within its request."""
    return errors.Cancelled("the caller went away before the body was complete", reason="CALLER_GONE")


async def read_body(receive: Receive) -> bytes:
    """The whole body; the host bounds it. Raises Cancelled when the caller goes away before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise caller_gone()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_body(send: Send, body: bytes | memoryview, code: int = 200, *headers: Header) -> None:
    """Sends an answer with its content-length."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": code, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: object, code: int = 200, *extra: Header) -> None:
    """Sends a JSON answer."""
    await send_body(send, orjson.dumps(value), code, JSON, *extra)


async def send_error(send: Send, error: errors.Error) -> None:
    """Sends an error in the protocol's form, `{"error": text}`, with our Status beside it."""
    extra = [
        (key.encode(), value.encode())
        for key, value in error.trailing
        if isinstance(value, str) and key == "allow"
    ]
    code = 405 if error.reason == "METHOD_NOT_ALLOWED" else error.code.http_status
    if isinstance(error, BodyTooLarge):
        code = error.http_status
        extra += error.headers
    if error.retry_after is not None:
        extra.append((b"retry-after", str(max(1, round(error.retry_after))).encode()))
    body = {"error": error.message, "status": json_format.MessageToDict(status.to_status(error))}
    await send_json(send, body, code, *extra)
