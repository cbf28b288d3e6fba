"""Collects the method handlers that generated `add_XServicer_to_server` functions register, with
interceptors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.interceptors import Interceptor, intercepted


class Registration:
    """Stands in for a server when a servicer is added; the faces serve what it collected."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self.handlers: dict[str, dict[str, Any]] = {}

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Called by generated code with every method of a service."""
        self.handlers[service_name] = {
            name: intercepted(f"/{service_name}/{name}", handler, self._interceptors)
            for name, handler in method_handlers.items()
        }

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Called by generated code for older servers, with the same methods once more: ignored."""
