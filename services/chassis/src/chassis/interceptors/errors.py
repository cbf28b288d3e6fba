"""Errors onto the wire: `chassis.errors` become Status, ErrorInfo and the rest; nothing else ever leaves.

Outermost, so that whatever an interceptor below raises is mapped too.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from chassis import status
from chassis.errors import Error
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour


class ErrorInterceptor:
    """Ends failed calls with `chassis.status.abort`."""

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """One answer or one Status."""

        async def behave(request: Any, context: Context) -> Any:
            try:
                return await proceed(request, context)
            except Error as error:
                await status.abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire; observation has logged it
                await status.abort(context, status.unknown(error))

        return behave

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """Answers, then possibly a Status."""

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for item in proceed(request, context):
                    yield item
            except Error as error:
                await status.abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire; observation has logged it
                await status.abort(context, status.unknown(error))

        return behave
