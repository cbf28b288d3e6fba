"""The bridge from blocking callers to the async client: one event loop in one thread per `Client`.

The logic exists once, in the async classes. `blocking` and `blocking_iterator` turn a method of an async
class into a method of its blocking face with the same, type-checked signature; no call is written twice.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from penstock_client.errors import FailedPrecondition

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
_END = object()


class Portal:
    """Runs coroutines on a loop of its own thread and hands results and exceptions back."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-client", daemon=True)
        self._thread.start()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the thread is gone."""
        return self._closed

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. A KeyboardInterrupt in the caller cancels it."""
        if self._closed:
            awaitable.close()
            raise FailedPrecondition("this client is closed; make a new one", reason="CLIENT_CLOSED")
        if threading.current_thread() is self._thread:
            awaitable.close()
            raise FailedPrecondition(
                "a blocking call inside the client's own callback would wait for itself; use AsyncClient",
                reason="CLIENT_REENTERED",
            )
        future = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, one at a time; leaving the loop early closes it."""
        try:
            while True:
                item = self.run(_next(source))
                if item is _END:
                    return
                yield item  # type: ignore[misc]  # only _END is not a T
        finally:
            close: Callable[[], Awaitable[None]] | None = getattr(source, "aclose", None)
            if close is not None and not self._closed:
                self.run(_await(close()))

    def close(self) -> None:
        """Stops the thread; open iterators end."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Face(Generic[A]):
    """The blocking face of an async object."""

    def __init__(self, inner: A, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Face[A], P], T]:
    """The blocking form of an async method."""

    def call(self: Face[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.run(method(self._inner, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def blocking_iterator(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Face[A], P], Iterator[T]]:
    """The blocking form of a method that returns an async iterator."""

    def call(self: Face[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._portal.iterate(method(self._inner, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


async def _end_tasks() -> None:
    """Cancels whatever else the loop still runs and waits for it."""
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


async def _next(source: AsyncIterator[T]) -> T | object:
    return await anext(source, _END)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
