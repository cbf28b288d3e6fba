"""The bound on request bodies, for every route a service adds to its REST face.

The bytes are counted as the route receives them, so a streamed body stays a stream and nothing is kept here.
The transcoder bounds its own paths by the same setting: there a streamed body is many messages, and the bound
is on each.
"""

from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from chassis.rest.problem import BodyTooLarge


class LimitedRoute(BaseRoute):
    """A route whose `receive` raises `BodyTooLarge` beyond the limit: before the first byte if the length is
    told.

    The route may answer it in its own form; otherwise it becomes the Status body of all errors.
    """

    def __init__(self, route: BaseRoute, limit: int) -> None:
        self._route = route
        self._limit = limit
        self.path = getattr(route, "path", None)  # the template, for metrics and spans

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes the request."""
        return self._route.matches(scope)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """The route's own."""
        return self._route.url_path_for(name, **path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the route."""
        if scope["type"] == "http":
            receive = _Counted(receive, self._limit, _told(scope)).receive
        await self._route.handle(scope, receive, send)


class _Counted:
    __slots__ = ("_left", "_limit", "_receive", "_told")

    def __init__(self, receive: Receive, limit: int, told: int) -> None:
        self._receive = receive
        self._limit = limit
        self._left = limit
        self._told = told

    async def receive(self) -> Message:
        if self._told > self._limit:
            raise BodyTooLarge(self._limit)
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLarge(self._limit)
        return message


def _told(scope: Scope) -> int:
    for key, value in scope["headers"]:
        if key == b"content-length" and value.isdigit():
            return int(value)
    return 0
