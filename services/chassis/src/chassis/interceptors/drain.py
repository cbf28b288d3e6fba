"""Ends watches when the service drains: streams that never end by themselves would hold it up to the limit.

By the contracts' naming, those are the streams of methods called `Watch…`; their callers resume with a token.
Other streams (downloads, uploads) may finish.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from chassis import errors
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour


class DrainInterceptor:
    """Knows the watches in progress; `end_watches` ends them with UNAVAILABLE, and new ones at once."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._watching: set[asyncio.Task[Any]] = set()

    def end_watches(self) -> None:
        """From now on there are none."""
        self._ended.set()
        for task in self._watching:
            task.cancel()

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """Ends by itself."""
        return proceed

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """A watch is ended where it waits for something to happen."""
        if not method.name.rpartition("/")[2].startswith("Watch"):
            return proceed

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            if self._ended.is_set():
                raise _draining()
            task = asyncio.current_task()
            assert task is not None
            self._watching.add(task)
            try:
                async for item in proceed(request, context):
                    yield item
            except asyncio.CancelledError:
                if not self._ended.is_set():
                    raise  # the caller went away
                task.uncancel()
                raise _draining() from None
            finally:
                self._watching.discard(task)

        return behave


def _draining() -> errors.Error:
    return errors.Unavailable(
        "the service is shutting down; watch again elsewhere or later", reason="DRAINING", retry_after=1.0
    )
