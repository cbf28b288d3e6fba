"""A bounded history of changes that any number of watchers follow, each at its own pace, with resume
tokens.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

from chassis import errors

E = TypeVar("E")


class EventLog(Generic[E]):
    """Numbers events from 1. A token is the log's epoch, which each process start renews, and a number."""

    def __init__(self, *, epoch: str, history: int = 4096) -> None:
        self._epoch = epoch
        self._events: deque[tuple[int, E]] = deque(maxlen=history)
        self._last = 0
        self._changed = asyncio.Event()
        self._closed = False

    def append(self, event: E) -> None:
        """Adds a change; never waits."""
        self._last += 1
        self._events.append((self._last, event))
        self._wake()

    def close(self) -> None:
        """Ends all watches with UNAVAILABLE: they would hold up a drain for ever."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(
        self, token: str, snapshot: Callable[[], Iterable[E]]
    ) -> AsyncIterator[tuple[E | None, str]]:
        """Events with their resume tokens.

        Without a token, first what `snapshot` tells, without tokens, then (None, token): from here on it is
        changes. With one, only what came after it. Raises OutOfRange for a token that is too old or of
        another process, also when a watcher falls behind the history; the right answer is to watch again
        without one.
        """
        if token:
            seen = self._position(token)
        else:
            seen, start = self._last, list(snapshot())
            for event in start:
                yield event, ""
            yield None, self._token(seen)
        while True:
            if self._closed:
                raise errors.Unavailable(
                    "the gateway is stopping", reason="GATEWAY_STOPPING", retry_after=1.0
                )
            if seen == self._last:
                await self._changed.wait()
                continue
            self._check_remembered(seen)
            for number, event in [item for item in self._events if item[0] > seen]:
                seen = number
                yield event, self._token(number)

    def _token(self, number: int) -> str:
        return f"{self._epoch}.{number}"

    def _position(self, token: str) -> int:
        epoch, _, number = token.rpartition(".")
        if not epoch or not number.isascii() or not number.isdigit():
            raise errors.InvalidArgument(
                f"{token!r} is no resume token of this gateway; send one as it was received, or none",
                reason="RESUME_TOKEN_MALFORMED",
                violations=[errors.FieldViolation("resume_token", "malformed", "RESUME_TOKEN_MALFORMED")],
            )
        seen = int(number)
        if epoch != self._epoch or seen > self._last:
            raise self._expired()
        self._check_remembered(seen)
        return seen

    def _check_remembered(self, seen: int) -> None:
        if seen < self._last and self._events[0][0] > seen + 1:
            raise self._expired()

    @staticmethod
    def _expired() -> errors.OutOfRange:
        return errors.OutOfRange(
            "the changes since this resume token are not remembered; watch again without a token",
            reason="RESUME_TOKEN_EXPIRED",
        )
