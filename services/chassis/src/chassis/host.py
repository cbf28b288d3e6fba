"""What a service's own composition root fills: `build(host, settings)` puts its parts here, `bootstrap` runs
them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.routing import BaseRoute

from chassis.auth import Authenticator, TokenVerifier
from chassis.clock import Clock
from chassis.openapi import Described
from chassis.settings import ServiceSettings
from chassis.telemetry import Logger, Telemetry
from chassis.transport.port import DataPath

T = TypeVar("T")
S = TypeVar("S", bound=ServiceSettings)
TaskFunction = Callable[[], Coroutine[Any, Any, None]]
DrainCallback = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Servicer(Generic[T]):
    """A control-plane servicer and the generated function that adds it to a server."""

    add: Callable[[T, Any], None]
    servicer: T
    service: str


@dataclass(frozen=True)
class ServedDataPath:
    """A data path and the services whose methods it has."""

    data_path: DataPath
    services: tuple[str, ...]


class Host:
    """The parts of one service instance.

    Order of life: resources are entered while building; then the faces listen, background tasks start, health
    says SERVING. At the end: drain callbacks, NOT_SERVING, no new calls, calls in flight finish, tasks are
    cancelled, resources close in reverse order.
    """

    def __init__(
        self,
        name: str,
        version: str,
        settings: ServiceSettings,
        *,
        telemetry: Telemetry,
        authenticator: Authenticator,
        clock: Clock,
        resources: AsyncExitStack,
    ) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        self.telemetry = telemetry
        self.authenticator = authenticator
        self.clock = clock
        self.servicers: list[Servicer[Any]] = []
        self.data_paths: list[ServedDataPath] = []
        self.routes: list[BaseRoute] = []
        self.described: list[Described] = []
        self.drain_callbacks: list[DrainCallback] = []
        self.serving: dict[str, bool] = {}
        self.grpc_address = ""
        self.rest_address = ""
        self._resources = resources
        self._tasks: list[tuple[str, TaskFunction]] = []
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._on_serving: Callable[[str, bool], None] | None = None

    @property
    def log(self) -> Logger:
        """The service's logger."""
        return self.telemetry.logger

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Opens a resource that lives as long as the service; closed in reverse order, after the tasks."""
        return await self._resources.enter_async_context(manager)

    def add_servicer(self, add_fn: Callable[[T, Any], None], servicer: T, *, service: str) -> None:
        """Serves a control-plane service: gRPC with all interceptors, and REST from its contract."""
        self.servicers.append(Servicer(add_fn, servicer, service))
        self.serving.setdefault(service, True)

    def add_data_path(self, data_path: DataPath, *, services: Sequence[str]) -> None:
        """Serves a hot path: raw bytes, no interceptors. `services` are told to reflection and health."""
        self.data_paths.append(ServedDataPath(data_path, tuple(services)))
        for service in services:
            self.serving.setdefault(service, True)

    def add_http(self, route: BaseRoute, *, described: Described | None = None) -> None:
        """Adds a route to the REST face, in front of the transcoded ones, within the limit on bodies.

        `described` is what `/openapi.json` and `/docs` say of it.
        """
        self.routes.append(route)
        if described is not None:
            self.described.append(described)

    def add_verifier(self, verifier: TokenVerifier) -> None:
        """Accepts bearer tokens of the service's own (API keys) on all faces."""
        self.authenticator.add_verifier(verifier)

    def add_task(self, name: str, function: TaskFunction) -> None:
        """Runs a background task for the life of the service. It may end; if it fails, the service stops."""
        if self._group is None:
            self._tasks.append((name, function))
        else:
            self._start(name, function)

    def on_drain(self, callback: DrainCallback) -> None:
        """Awaited first thing after SIGTERM, while calls are still accepted (deregister here)."""
        self.drain_callbacks.append(callback)

    def set_serving(self, service: str, serving: bool) -> None:
        """What health says of a service; readiness needs all of them."""
        self.serving[service] = serving
        if self._on_serving is not None:
            self._on_serving(service, serving)

    # What follows is for bootstrap.

    def observe_serving(self, callback: Callable[[str, bool], None]) -> None:
        """Tells changes of `serving` to whoever answers health checks."""
        self._on_serving = callback

    def start_tasks(self, group: asyncio.TaskGroup) -> None:
        """Starts the background tasks, and from now on each new one at once."""
        self._group = group
        for name, function in self._tasks:
            self._start(name, function)
        self._tasks.clear()

    async def stop_tasks(self) -> None:
        """Cancels the background tasks, the youngest first, and waits for each."""
        tasks = [task for task in self._running if not task.done()]
        for task in reversed(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, name: str, function: TaskFunction) -> None:
        assert self._group is not None
        task = self._group.create_task(function(), name=f"{self.name}/{name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
