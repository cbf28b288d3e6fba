"""HTTP/1.1 connections that a slow or hostile peer cannot hold or fill.

uvicorn times only the silence between two requests. Here a request's head must come whole within a time, a
body may not pause for longer than a time, an answer must be taken, and what is no body (heads, chunk framing,
trailers), which the parser keeps in memory, is bounded.
"""

import asyncio
from enum import Enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.server.http import WithPeer
from chassis.settings import LimitsSettings

MAX_HEAD_BYTES = 64 * 1024
_FRAMING_PER_BYTE = 32  # one byte a chunk takes six; more than this is no honest way to send a body
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 34\r\nconnection: close\r\n\r\nThe request did not come in time.\n"
)


class _Phase(Enum):
    IDLE = 0
    HEAD = 1
    BODY = 2


class HttpProtocol(HttpToolsProtocol):
    """One connection. Tells the application the names in the client's certificate, too."""

    def __init__(self, *arguments: Any, limits: LimitsSettings, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._phase = _Phase.HEAD
        self._began = self._heard = self.loop.time()
        self._overhead = 0  # bytes of this request that are no body
        self._body = 0
        self._watch: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._send_watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Once per connection, so that requests pay nothing for it."""
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self.app = WithPeer(self.app, certificate)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        for timer in (self._watch, self._send_watch):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and watches a request that has not come whole."""
        self._heard = self.loop.time()
        if self._phase is _Phase.IDLE and self._answered():
            self._phase, self._began = _Phase.HEAD, self._heard
        self._overhead += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._overhead > MAX_HEAD_BYTES + _FRAMING_PER_BYTE * self._body:
            if self._answered() or self._phase is _Phase.HEAD:
                self.send_400_response("The head of the request is too large.")
            else:
                self.transport.close()
        elif self._watch is None and self._phase is not _Phase.IDLE:
            self._look()

    def on_message_begin(self) -> None:
        """A new request on the connection."""
        if self._phase is not _Phase.HEAD:
            self._phase, self._began = _Phase.HEAD, self.loop.time()
        self._overhead = self._body = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header that came whole. Trailers are none of the application's business: a header that was not
        there when the request was let in must not appear afterwards.
        """
        if self._phase is _Phase.BODY:
            return
        if len(name) + len(value) > MAX_HEAD_BYTES:
            raise ValueError("the head of the request is too large")  # the parser's caller answers 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._phase = _Phase.BODY
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._overhead -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come whole."""
        self._phase = _Phase.IDLE
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The peer does not take what is sent as fast as it is made."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        if self._send_watch is None:
            self._send_watch = self.loop.call_later(self._limits.send_timeout, self._look_at_sending)

    def resume_writing(self) -> None:
        """The peer has taken most of it."""
        if self._send_watch is not None:
            self._send_watch.cancel()
            self._send_watch = None
        super().resume_writing()

    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        """Ends the connection when what is awaited did not come in time; else looks again when it should."""
        self._watch = None
        if self._phase is _Phase.IDLE or self.transport.is_closing():
            return
        now = self.loop.time()
        if self._phase is _Phase.HEAD:
            # The head of a request behind one that is being answered may wait for that.
            due = (self._began if self._answered() else now) + self._limits.head_timeout
        else:
            due = (now if self.flow.read_paused else self._heard) + self._limits.body_timeout
        if now < due:
            self._watch = self.loop.call_at(due, self._look)
            return
        silent = self._phase is _Phase.HEAD and self._heard <= self._began and not self._overhead
        if not silent and not (self._phase is _Phase.BODY and self.cycle.response_started):
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _look_at_sending(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent >= self._unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._send_watch = self.loop.call_later(self._limits.send_timeout, self._look_at_sending)
