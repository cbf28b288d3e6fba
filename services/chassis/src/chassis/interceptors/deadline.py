"""Deadlines of control-plane calls: expired ones are not begun, and none runs without a bound."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from chassis import errors
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour


class DeadlineInterceptor:
    """Gives calls with one answer a default deadline. Streams (watches) may last as long as the caller
    wants.
    """

    def __init__(self, default: float) -> None:
        self._default = default

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """The caller's own deadline cancels the call from outside; the default one is enforced here."""

        async def behave(request: Any, context: Context) -> Any:
            remaining = context.time_remaining()
            if remaining is not None:
                _check(method, remaining)
                return await proceed(request, context)
            bound = asyncio.timeout(self._default)
            try:
                async with bound:
                    return await proceed(request, context)
            except TimeoutError as error:
                if not bound.expired():
                    raise
                raise errors.DeadlineExceeded(
                    f"{method.name} did not finish within the default deadline of {self._default:g} s",
                    reason="DEFAULT_DEADLINE_EXCEEDED",
                ) from error

        return behave

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """Refuses what is expired already."""

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            remaining = context.time_remaining()
            if remaining is not None:
                _check(method, remaining)
            async for item in proceed(request, context):
                yield item

        return behave


def _check(method: MethodInfo, remaining: float) -> None:
    if remaining <= 0:
        raise errors.DeadlineExceeded(
            f"the deadline had passed before {method.name} began", reason="DEADLINE_EXPIRED"
        )
