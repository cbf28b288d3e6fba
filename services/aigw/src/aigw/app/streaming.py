"""Bidirectional streams: one replica for a whole stream, another one only while nothing was answered yet."""

import asyncio
from collections.abc import AsyncIterator, Callable

from chassis import errors
from chassis.errors import Code

from aigw.app.exchange import Exchange
from aigw.app.forwarding import Forwarder, note_trace
from aigw.app.observation import Observer
from aigw.domain.health import Replica

REPLAY_BYTES = 4 * 1024 * 1024
"""Requests kept for a second attempt, until the first answer. A stream that sent more is not tried again."""

Open = Callable[[Replica, AsyncIterator[bytes]], AsyncIterator[bytes]]
"""Opens a stream at a replica with the requests given."""


class StreamForwarder:
    """Sends streams to replicas, by the same table and policy as `Forwarder`."""

    def __init__(self, forwarder: Forwarder, observer: Observer, *, tracing: bool) -> None:
        self._forwarder = forwarder
        self._observer = observer
        self._tracing = tracing

    async def stream(self, exchange: Exchange, requests: "Replay", open_stream: Open) -> AsyncIterator[bytes]:
        """The answers, and the exchange finished. `requests` holds at least the first message.

        A stream has no default timeout: it lives as long as its caller lets it.
        """
        try:
            if self._tracing:
                note_trace(exchange)
            replica, _ = self._forwarder.begin(exchange)
            deadline = exchange.deadline if exchange.deadline is not None else float("inf")
            tried: list[Replica] = []
            while True:
                tried.append(replica)
                replica.in_flight += 1
                answers = open_stream(replica, requests.follow())
                try:
                    async for answer in answers:
                        requests.forget()
                        exchange.response_bytes += len(answer)
                        yield answer
                except errors.Error as error:
                    if requests.error is not None:
                        raise requests.error from error
                    if not requests.complete:
                        raise
                    replica = self._forwarder.next_replica(exchange, replica, tried, deadline, error)
                else:
                    if requests.error is not None:
                        raise requests.error
                    replica.succeeded()
                    return
                finally:
                    tried[-1].in_flight -= 1
                    await _close(answers)
        except errors.Error as error:
            exchange.code = error.code
            exchange.reason = error.reason
            raise
        except (asyncio.CancelledError, GeneratorExit):
            exchange.code = Code.CANCELLED
            raise
        except BaseException:
            exchange.code = Code.INTERNAL
            raise
        finally:
            requests.close()
            exchange.request_bytes = requests.size
            self._observer.finish(exchange)


class Replay:
    """The requests of a stream: read once from the caller, handed out again for each attempt.

    `check` sees each message after the first and raises if it may not be sent; that ends the stream with
    its error, whatever the replica says.
    """

    def __init__(self, first: bytes, source: AsyncIterator[bytes], check: Callable[[bytes], None]) -> None:
        self._source = source
        self._check = check
        self._kept: list[bytes] = [first]
        self._read = 1  # messages read so far, of which the last ones are kept
        self._keeping = True
        self._ended = False
        self._followers = 0
        self._pending: asyncio.Task[bytes | None] | None = None
        self.size = len(first)
        self.error: errors.Error | None = None

    @property
    def complete(self) -> bool:
        """Whether another attempt would see everything that was sent."""
        return self._keeping

    def forget(self) -> None:
        """The first answer has come: there will be no other attempt."""
        self._keeping = False

    async def follow(self) -> AsyncIterator[bytes]:
        """All requests from the first one on, for one attempt."""
        self._followers += 1
        own = self._followers
        position = 0
        while own == self._followers:  # a later attempt has taken over: this one's replica is gone
            offset = position - (self._read - len(self._kept))
            if offset < len(self._kept):
                message = self._kept[offset]
                position += 1
                if not self._keeping:
                    del self._kept[: offset + 1]
                yield message
                continue
            if self._ended or not await self._more():
                return

    async def _more(self) -> bool:
        """Reads one more message. The read outlives the attempt that asked for it: the next one takes it
        over.
        """
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._take())
        pending = self._pending
        await asyncio.wait((pending,))
        if self._pending is pending:
            self._pending = None
            message = pending.result()
            if message is None:
                self._ended = True
                return False
            self._kept.append(message)
            self._read += 1
            self.size += len(message)
            if self.size > REPLAY_BYTES:
                self._keeping = False
        return True

    async def _take(self) -> bytes | None:
        try:
            message = await anext(self._source, None)
            if message is not None:
                self._check(message)
            return message
        except errors.Error as error:
            self.error = error
            return None

    def close(self) -> None:
        """Stops reading."""
        if self._pending is not None:
            self._pending.cancel()


async def _close(answers: AsyncIterator[bytes]) -> None:
    close = getattr(answers, "aclose", None)
    if close is not None:
        await close()
