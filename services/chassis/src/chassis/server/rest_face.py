"""The REST face: transcoded contracts, the service's own HTTP routes, metrics, health and documentation.

uvicorn runs inside the service's loop. What wraps every request, outermost first: observation (span,
metrics), authentication, then routing.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from google.protobuf import descriptor_pb2, descriptor_pool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Message, Receive, Scope, Send

from chassis import errors, openapi, rest
from chassis.host import Host
from chassis.server.body_limit import LimitedRoute
from chassis.server.http import AuthenticationMiddleware, ErrorMiddleware, ObservationMiddleware
from chassis.server.http_protocol import HttpProtocol
from chassis.settings import ListenSettings, ServiceSettings
from chassis.tls import server_context


class RestFace:
    """Listens for HTTP."""

    def __init__(self, host: Host, settings: ServiceSettings, handlers: dict[str, dict[str, Any]]) -> None:
        self._settings = settings
        self._host = host
        self.ready = False
        self._draining = False
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        # A bare router: the middleware of a Starlette application would answer errors in its own words.
        guarded = ErrorMiddleware(Router(routes=self._routes(handlers)), host.telemetry)
        authenticated = AuthenticationMiddleware(guarded, host.authenticator)
        self._observed = ObservationMiddleware(authenticated, host.telemetry)
        self._server = self._uvicorn()

    async def start(self) -> int:
        """Binds and listens; gives the port. Raises FailedPrecondition when the address cannot be had."""
        self._socket = _bind(self._settings.rest)
        port = int(self._socket.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="rest")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise errors.Internal("the REST face ended while starting", reason="REST_FACE_ENDED")
            await asyncio.sleep(0)
        self.ready = True
        return port

    async def not_serving(self) -> None:
        """Readiness says no; requests are still answered."""
        self._draining = True

    async def stop(self, grace: float) -> None:
        """Takes no new connections, lets requests in flight finish for `grace` seconds, then cancels them."""
        if self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]  # passed to wait_for
        self._server.should_exit = True
        await self._task
        self._task = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. While draining the answer also ends its connection: a caller that keeps it learns so
        between two requests, not by losing one.
        """
        if not self._draining:
            await self._observed(scope, receive, send)
            return

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [item for item in message["headers"] if item[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        await self._observed(scope, receive, closing)

    def _routes(self, handlers: dict[str, dict[str, Any]]) -> list[BaseRoute]:
        services = [item.service for item in self._host.servicers]
        limit = self._settings.limits.max_body_bytes
        routes: list[BaseRoute] = [
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            *(LimitedRoute(route, limit) for route in self._host.routes),
        ]
        if services or self._host.described:
            backend = rest.InProcess()
            for service, methods in handlers.items():
                backend.add_registered_method_handlers(service, methods)
            descriptors = described(services)
            info = openapi.Info(
                title=f"Penstock {self._host.name}",
                version=self._host.version,
                described=self._host.described,
            )
            options = rest.Options(max_request_bytes=limit)
            routes += openapi.routes(descriptors, services, info)
            routes.append(Mount("/", rest.asgi(descriptors, services, backend, options)))
        return routes

    def _uvicorn(self) -> uvicorn.Server:
        settings = self._settings
        config = uvicorn.Config(
            self._answer,
            http=functools.partial(HttpProtocol, limits=settings.limits),  # type: ignore[arg-type]  # a factory
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=settings.limits.max_connections,
            timeout_keep_alive=75,
            backlog=1024,
        )
        config.load()
        if settings.tls.enabled:
            config.ssl = server_context(settings.tls)
        return _Server(config)

    async def _healthz(self, request: Request) -> Response:
        """Alive: the loop answers."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        """Ready: serving, and every service of it says so."""
        waiting = sorted(name for name, serving in self._host.serving.items() if not serving)
        if self._draining:
            return PlainTextResponse("draining\n", 503)
        if not self.ready or waiting:
            return PlainTextResponse(f"not serving: {', '.join(waiting) or 'starting'}\n", 503)
        return PlainTextResponse("ready\n")

    async def _metrics(self, request: Request) -> Response:
        """The Prometheus exposition."""
        body, content_type = self._host.telemetry.scrape(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the service has its own), and without lost callers at the end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in who has connected already: closing the listener would reset them."""
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            listener.setblocking(False)
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # nobody is waiting
                    break
                with contextlib.suppress(OSError):
                    await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        factory: Any = self.config.http_protocol_class
        made: asyncio.Protocol = factory(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


def described(services: list[str]) -> descriptor_pb2.FileDescriptorSet:
    """Penstock's descriptors, with comments, and those of other services from the process's pool, without."""
    descriptors = rest.penstock_descriptors()
    present = {file.name for file in descriptors.file}

    def add(file: Any) -> None:
        if file.name in present:
            return
        present.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(descriptors.file.add())

    for service in services:
        add(descriptor_pool.Default().FindServiceByName(service).file)
    return descriptors


def _bind(listen: ListenSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"cannot listen on {listen.address} (REST): {error.strerror or error}",
            reason="ADDRESS_UNAVAILABLE",
            metadata={"address": listen.address},
        ) from error
