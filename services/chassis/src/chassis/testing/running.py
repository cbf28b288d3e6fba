"""A service running inside the test, over real sockets on free ports."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from chassis.bootstrap import Host, Service, started
from chassis.clock import Clock
from chassis.settings import ServiceSettings
from chassis.telemetry import Telemetry

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class RunningService:
    """Where a service runs, a plain-text channel to it, and its host."""

    grpc_address: str
    rest_url: str
    channel: grpc.aio.Channel
    host: Host
    service: Service


@contextlib.asynccontextmanager
async def running(
    settings: S,
    build: Callable[[Host, S], Awaitable[None]],
    *,
    name: str = "test",
    telemetry: Telemetry | None = None,
    clock: Clock | None = None,
    any_port: bool = True,
) -> AsyncIterator[RunningService]:
    """Runs a service until the context ends, then drains it. Ports become free ones unless `any_port` is
    off.
    """
    if any_port:
        settings = settings.model_copy(
            update={
                "grpc": settings.grpc.model_copy(update={"port": 0}),
                "rest": settings.rest.model_copy(update={"port": 0}),
                "drain": settings.drain.model_copy(update={"settle": 0.0}),
            }
        )
    async with started(name, "0", settings, build, telemetry=telemetry, clock=clock) as service:
        host = service.host
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(host.grpc_address, options) as channel:
            yield RunningService(host.grpc_address, service.rest_url, channel, host, service)
