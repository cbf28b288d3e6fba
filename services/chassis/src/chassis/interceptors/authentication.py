"""Authentication of control-plane calls."""

from collections.abc import AsyncIterator
from typing import Any

from chassis import auth
from chassis.auth import Authenticator
from chassis.identity import Identity
from chassis.interceptors.chain import Context, MethodInfo, StreamBehaviour, UnaryBehaviour, metadata_value


class AuthenticationInterceptor:
    """Refuses callers that cannot say who they are; the others' identity is `auth.current_identity()`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def unary(self, method: MethodInfo, proceed: UnaryBehaviour) -> UnaryBehaviour:
        """Authenticates, then proceeds."""
        if method.service in self._authenticator.exempt_services:
            return proceed

        async def behave(request: Any, context: Context) -> Any:
            token = auth.set_current_identity(self._identity(context))
            try:
                return await proceed(request, context)
            finally:
                auth.reset_current_identity(token)

        return behave

    def stream(self, method: MethodInfo, proceed: StreamBehaviour) -> StreamBehaviour:
        """Authenticates, then proceeds."""
        if method.service in self._authenticator.exempt_services:
            return proceed

        async def behave(request: Any, context: Context) -> AsyncIterator[Any]:
            # No reset: a generator may be closed from another context, and this call's context ends with it.
            auth.set_current_identity(self._identity(context))
            async for item in proceed(request, context):
                yield item

        return behave

    def _identity(self, context: Context) -> Identity | None:
        known = auth.current_identity()
        if known is not None or not self._authenticator.enabled:
            return known  # the REST face has authenticated the request around this call
        names: tuple[str, ...] = ()
        if self._authenticator.mutual_tls:
            names = auth.certificate_names(context.auth_context() or {})
        return self._authenticator.authenticate(metadata_value(context, "authorization"), names)
