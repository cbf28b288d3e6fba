"""Collects the method handlers that generated `add_XServicer_to_server` functions register, with
interceptors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import descriptor_pool

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
        """Called by generated code with the same methods; the only call that older generated code makes."""
        for generic in generic_rpc_handlers:
            service = generic.service_name()
            if service in self.handlers:
                continue
            names = [m.name for m in descriptor_pool.Default().FindServiceByName(service).methods]
            found = {name: generic.service(_Details(f"/{service}/{name}", ())) for name in names}
            self.add_registered_method_handlers(service, {n: h for n, h in found.items() if h is not None})


class _Details(NamedTuple):
    """What a generic handler is asked with."""

    method: str
    invocation_metadata: tuple[Any, ...]
