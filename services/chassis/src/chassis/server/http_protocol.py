"""HTTP/1.1 connections that a slow or hostile peer cannot hold or fill.

uvicorn times only the silence between two requests. Here a request's head must come whole within a time, a
body may not pause for longer than a time, an answer must be taken, and what is no body (heads, chunk framing,
trailers), which the parser keeps in memory, is bounded. An offer to upgrade is left alone, body and all.
"""

import asyncio
import sys
from enum import Enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.server.http import WithPeer
from chassis.settings import LimitsSettings

MAX_HEAD_BYTES = 64 * 1024
_FRAMING_PER_BYTE = 32  # one byte a chunk takes six; more than this is no honest way to send a body
_LAST_CHANCE = 0.25  # seconds that a connection which was just opened has for its first request, at the end
_FRAMING = (b"content-length", b"transfer-encoding")
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
        self._last_chance: asyncio.TimerHandle | None = None
        self._running: Any = None  # the request being answered; uvicorn's `cycle` is the one read last
        self._data = b""
        self._muted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Once per connection, so that requests pay nothing for it."""
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self.app = WithPeer(self.app, certificate)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        for timer in (self._watch, self._send_watch, self._last_chance):
            if timer is not None:
                timer.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()  # nobody is left to be answered
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Ends the connection after the requests it carries; one that was just opened may bring its first."""
        if self._running is None and not self.transport.is_closing():
            self._last_chance = self.loop.call_later(_LAST_CHANCE, super().shutdown)
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and watches a request that has not come whole."""
        self._heard = self.loop.time()
        if self._phase is _Phase.IDLE and self._answered():
            self._phase, self._began = _Phase.HEAD, self._heard
        self._overhead += len(data)
        self._feed(data)
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
        if self._muted:
            return
        if self._phase is not _Phase.HEAD:
            self._phase, self._began = _Phase.HEAD, self.loop.time()
        self._overhead = self._body = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if not self._muted:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header that came whole. Trailers are none of the application's business: a header that was not
        there when the request was let in must not appear afterwards.
        """
        if self._muted or self._phase is _Phase.BODY:
            return
        if len(name) + len(value) > MAX_HEAD_BYTES:
            raise ValueError("the head of the request is too large")  # the parser's caller answers 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        if self._muted:
            return
        self._phase = _Phase.BODY
        super().on_headers_complete()
        if self._last_chance is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._overhead -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come whole."""
        if self._muted:
            return
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

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Goes on in HTTP/1.1, as RFC 9110 (7.8) has it. The parser gave the message up at its head, so a
        new one is told how the body is framed and reads the rest.
        """
        error = sys.exc_info()[1]
        rest = self._data[error.args[0] :] if isinstance(error, httptools.HttpParserUpgrade) else b""
        framing = b"".join(b"%b: %b\r\n" % item for item in self.headers if item[0] in _FRAMING)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._muted = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        finally:
            self._muted = False
        if framing:
            self.cycle.more_body = True
            self._phase = _Phase.BODY
        if rest:
            self._feed(rest)

    def _feed(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)

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
