"""The gRPC face: control plane, data paths, health, reflection and channelz on one server."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from chassis import errors
from chassis.host import Host
from chassis.interceptors import (
    AuthenticationInterceptor,
    DeadlineInterceptor,
    DrainInterceptor,
    ErrorInterceptor,
    Interceptor,
    ObservationInterceptor,
    ValidationInterceptor,
)
from chassis.server.registration import Registration
from chassis.settings import LimitsSettings, ServiceSettings
from chassis.status import abort
from chassis.tls import server_credentials
from chassis.transport.grpcio import DataPathHandler

_CHANNELZ = "grpc.channelz.v1.Channelz"
_Status = health_pb2.HealthCheckResponse


def server_options(limits: LimitsSettings) -> list[tuple[str, Any]]:
    """grpc.aio server arguments of the limits."""
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 4 * limits.max_metadata_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # Two processes on one port would share its connections without anybody noticing.
        ("grpc.so_reuseport", 0),
        # Our channels ping idle connections every 30 s; a server that minds (5 minutes by default) hangs up.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A peer that vanished without a word must not keep its streams for ever; one that says none, either.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.server_handshake_timeout_ms", int(limits.head_timeout * 1000)),
    ]


def control_interceptors(host: Host, drain: DrainInterceptor) -> tuple[Interceptor, ...]:
    """What every control-plane call passes through, outermost first."""
    return (
        ErrorInterceptor(),
        ObservationInterceptor(host.telemetry),
        drain,
        AuthenticationInterceptor(host.authenticator),
        DeadlineInterceptor(host.settings.limits.default_deadline),
        ValidationInterceptor(),
    )


class GrpcFace:
    """Listens for gRPC. `handlers` are the control-plane handlers by service, for the REST face to share."""

    def __init__(self, host: Host, settings: ServiceSettings) -> None:
        self._host = host
        self._settings = settings
        self._server = grpc.aio.server(
            options=server_options(settings.limits),
            maximum_concurrent_rpcs=settings.limits.max_concurrent_calls,
        )
        self._health = health.aio.HealthServicer()
        self._health_changes: set[asyncio.Task[None]] = set()
        self._drain = DrainInterceptor()
        registration = Registration(control_interceptors(host, self._drain))
        for item in host.servicers:
            item.add(item.servicer, registration)
        self.handlers = dict(registration.handlers)
        control = _Methods({**registration.handlers, **self._infrastructure(host)})
        generic = [DataPathHandler(p.data_path, host.telemetry, host.authenticator) for p in host.data_paths]
        self._server.add_generic_rpc_handlers((*generic, control, _Unknown()))

    async def start(self) -> int:
        """Binds and listens; gives the port. Raises FailedPrecondition when the address cannot be had."""
        listen = self._settings.grpc
        for service, serving in self._host.serving.items():
            await self._health.set(service, _status(serving))
        await self._health.set("", _status(True))
        self._host.observe_serving(self._serving_changed)
        try:
            if self._settings.tls.enabled:
                credentials = server_credentials(self._settings.tls)
                port = self._server.add_secure_port(listen.address, credentials)
            else:
                port = self._server.add_insecure_port(listen.address)
        except RuntimeError as error:
            raise errors.FailedPrecondition(
                f"cannot listen on {listen.address} (gRPC): the address is in use or not of this machine",
                reason="ADDRESS_UNAVAILABLE",
                metadata={"address": listen.address},
            ) from error
        await self._server.start()
        return int(port)

    async def not_serving(self) -> None:
        """Health says NOT_SERVING for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Takes no new calls, lets those in flight finish for `grace` seconds, then cancels them.

        Ends watches on both faces, as the REST face calls the same handlers.
        """
        self._drain.end_watches()
        await self._server.stop(grace)

    def _infrastructure(self, host: Host) -> dict[str, dict[str, Any]]:
        plain: Sequence[Interceptor] = (
            ErrorInterceptor(),
            ObservationInterceptor(host.telemetry),
            self._drain,
            AuthenticationInterceptor(host.authenticator),
        )
        registration: Any = Registration(plain)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registration)
        names = [*self.handlers, *(s for p in host.data_paths for s in p.services), health.SERVICE_NAME]
        if self._settings.channelz:
            channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), registration)
            names.append(_CHANNELZ)
        if self._settings.reflection:
            names.append(reflection.SERVICE_NAME)
            servicer = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, registration)
        infrastructure: dict[str, dict[str, Any]] = registration.handlers
        return infrastructure

    def _serving_changed(self, service: str, serving: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._health.set(service, _status(serving)))
        self._health_changes.add(task)
        task.add_done_callback(self._health_changes.discard)


class _Methods(grpc.GenericRpcHandler):
    """The control-plane methods. grpc.aio asks generic handlers in order, so the data path comes first."""

    def __init__(self, services: dict[str, dict[str, Any]]) -> None:
        self._handlers = {
            f"/{service}/{method}": handler
            for service, methods in services.items()
            for method, handler in methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method; None for one that is not here."""
        return self._handlers.get(handler_call_details.method)


class _Unknown(grpc.GenericRpcHandler):
    """Answers methods nobody serves; asked last."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """A handler that names the method in its refusal."""
        return _UnknownMethod(handler_call_details.method)


class _UnknownMethod:
    request_streaming = True
    response_streaming = True
    request_deserializer = None
    response_serializer = None

    def __init__(self, method: str) -> None:
        self._method = method

    async def stream_stream(self, requests: Any, context: Any) -> None:
        await abort(
            context,
            errors.Unimplemented(
                f"this service has no method {self._method}",
                reason="METHOD_NOT_FOUND",
                metadata={"method": self._method[:200]},
            ),
        )


def _status(serving: bool) -> Any:
    return _Status.SERVING if serving else _Status.NOT_SERVING
