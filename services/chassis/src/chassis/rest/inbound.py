"""The request's side of an ASGI exchange: the body within limits, and noticing that the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from chassis.rest import problem

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Inbound:
    """Reads the body; once it is read, `watch` cancels the exchange's task when the client disconnects."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._ended = False
        self.gone = False

    async def read(self) -> bytes:
        """The whole body. Raises `problem.HttpFailure` (413) beyond the limit."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > self._limit:
                raise problem.too_large(self._limit)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, without a limit on its whole."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()
                await asyncio.sleep(3600)  # the cancellation just asked for arrives here
            self._ended = not message.get("more_body", False)
            if self._ended:
                self.watch()
            if body := message.get("body", b""):
                yield body

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines as they arrive, blank ones left out; the limit is on each line."""
        rest = b""
        async for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > self._limit or any(len(line) > self._limit for line in whole):
                raise problem.too_large(self._limit, "line of the request body")
            for line in whole:
                if line.strip():
                    yield line
        if rest.strip():
            yield rest

    def watch(self) -> None:
        """Start noticing a disconnect; nothing may read the body any more."""
        if self._watcher is None and self._ended:
            self._watcher = asyncio.create_task(self._wait_for_disconnect(), name="rest disconnect watch")

    def close(self) -> None:
        """The exchange is over."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        self._task = None

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if self._task is not None:
            self.gone = True
            self._task.cancel()
