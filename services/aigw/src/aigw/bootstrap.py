"""The gateway's only composition root; tests build it through here too."""

import contextlib
import secrets
from collections.abc import AsyncIterator

import orjson
from chassis import errors, openapi
from chassis.bootstrap import Host
from chassis.errors import Code
from chassis.transport.grpcio import GrpcConnector
from penstock.aigw.v1 import (
    endpoint_service_pb2_grpc,
    job_service_pb2_grpc,
    key_service_pb2_grpc,
    route_service_pb2_grpc,
    traffic_service_pb2_grpc,
)

from aigw.adapters.access_sinks import open_sink
from aigw.adapters.http_upstream import HttpConnector
from aigw.adapters.memory import MemoryEndpointStore, MemoryRouteStore
from aigw.adapters.prometheus import GatewayCollector
from aigw.adapters.sql.database import open_database
from aigw.adapters.sql.stores import SqlEndpointStore, SqlRouteStore
from aigw.api.endpoint_servicer import EndpointServicer
from aigw.api.grpc_inference import SERVICE, GrpcInference
from aigw.api.rest_inference import RestInference
from aigw.api.route_servicer import RouteServicer
from aigw.api.traffic_servicer import TrafficServicer
from aigw.api.unavailable import JobServicer, KeyServicer
from aigw.app.access_log import AccessLog
from aigw.app.catalog import RouteCatalog
from aigw.app.forwarding import Forwarder
from aigw.app.observation import Observer
from aigw.app.ports import EndpointStore, RouteStore
from aigw.app.registry import EndpointRegistry
from aigw.app.routing import Router
from aigw.app.streaming import StreamForwarder
from aigw.domain.route import EjectionPolicy, RetryPolicy, RoutePolicy
from aigw.domain.traffic import TrafficLog
from aigw.settings import AccessLogSettings, AigwSettings, RoutingSettings

NAME = "aigw"


async def build(host: Host, settings: AigwSettings) -> None:
    """Puts the gateway together: stores, registry and catalog, table, faces."""
    clock = host.clock
    route_store, endpoint_store = await _stores(host, settings)
    traffic = TrafficLog(
        resolution=settings.traffic.resolution, window=settings.traffic.window, started=clock.time()
    )
    access_log = await host.enter(_access_log(host, settings.access_log))
    router = await host.enter(_router(host, settings, traffic))
    catalog = RouteCatalog(route_store, clock=clock, new_id=_new_id)
    registry = EndpointRegistry(
        endpoint_store, clock=clock, new_id=_new_id, history=settings.registry.history
    )
    catalog.on_change(router.route_changed)
    registry.on_change(router.endpoint_changed)
    await catalog.load()
    await registry.load()
    host.log.info("table loaded", routes=len(catalog.select()), endpoints=len(registry.select()))

    observer = Observer(traffic, access_log, clock)
    telemetry = host.telemetry
    forwarder = Forwarder(
        router, observer, traffic, clock=clock, tracer=telemetry.tracer, tracing=telemetry.tracing
    )
    _add_faces(host, router, forwarder, observer)
    _add_control_plane(host, catalog, registry, router, traffic)
    telemetry.registry.register(GatewayCollector(traffic, router, access_log))
    host.add_task("lease-expiry", registry.run_expiry)
    host.add_task("readmission", router.run_readmission)
    host.add_task("retirement", router.run_retirement)
    host.add_task("access-log", access_log.run)

    async def end_watches() -> None:
        registry.events.close()
        router.events.close()

    host.on_drain(end_watches)


async def _stores(host: Host, settings: AigwSettings) -> tuple[RouteStore, EndpointStore]:
    if settings.store.backend == "memory":
        return MemoryRouteStore(), MemoryEndpointStore()
    if settings.store.backend == "sqlite":
        engine = await host.enter(open_database(settings.store.path))
        return SqlRouteStore(engine), SqlEndpointStore(engine)
    raise errors.InvalidArgument(
        f"there is no store {settings.store.backend!r}; there are sqlite and memory", reason="BACKEND_UNKNOWN"
    )


@contextlib.asynccontextmanager
async def _access_log(host: Host, settings: AccessLogSettings) -> AsyncIterator[AccessLog]:
    sink = open_sink(settings.sink, settings.path, max_bytes=settings.max_bytes, backups=settings.backups)
    log = AccessLog(
        sink,
        orjson.dumps,
        clock=host.clock,
        capacity=settings.buffer,
        sample_ratio=settings.sample_ratio,
        flush_interval=settings.flush_interval,
        on_failure=lambda error: host.log.error("the access log cannot be written", error=str(error)),
    )
    try:
        yield log
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def _router(host: Host, settings: AigwSettings, traffic: TrafficLog) -> AsyncIterator[Router]:
    router = Router(
        connector=GrpcConnector(settings.upstream, host.telemetry),
        http_connector=HttpConnector(settings.upstream, host.telemetry),
        traffic=traffic,
        clock=host.clock,
        epoch=_new_id(),
        defaults=default_policy(settings.routing),
        retirement=settings.routing.retirement,
    )
    try:
        yield router
    finally:
        await router.close()


def default_policy(settings: RoutingSettings) -> RoutePolicy:
    """What a route that says nothing gets."""
    return RoutePolicy(
        timeout=settings.timeout,
        retry=RetryPolicy(
            max_attempts=settings.max_attempts,
            codes=(Code.UNAVAILABLE,),
            per_try_timeout=settings.per_try_timeout,
            budget_percent=settings.retry_budget_percent,
            budget_min_per_second=settings.retry_budget_min_per_second,
        ),
        ejection=EjectionPolicy(
            consecutive_failures=settings.consecutive_failures,
            base_ejection=settings.base_ejection,
            max_ejection=settings.max_ejection,
        ),
    )


def _add_faces(host: Host, router: Router, forwarder: Forwarder, observer: Observer) -> None:
    streams = StreamForwarder(forwarder, observer, tracing=host.telemetry.tracing)
    grpc = GrpcInference(
        router, forwarder, streams, clock=host.clock, name="penstock-aigw", version=host.version
    )
    host.add_data_path(grpc.data_path(), services=[SERVICE])
    host.add_http(
        RestInference(
            router,
            forwarder,
            clock=host.clock,
            name="penstock-aigw",
            version=host.version,
        ),
        described=openapi.open_inference("{project}/{model}", statistics=False, repository=False),
    )


def _add_control_plane(
    host: Host, catalog: RouteCatalog, registry: EndpointRegistry, router: Router, traffic: TrafficLog
) -> None:
    host.add_servicer(
        route_service_pb2_grpc.add_RouteServiceServicer_to_server,
        RouteServicer(catalog, router),
        service="penstock.aigw.v1.RouteService",
    )
    host.add_servicer(
        endpoint_service_pb2_grpc.add_EndpointServiceServicer_to_server,
        EndpointServicer(registry, router, host.clock),
        service="penstock.aigw.v1.EndpointService",
    )
    host.add_servicer(
        traffic_service_pb2_grpc.add_TrafficServiceServicer_to_server,
        TrafficServicer(traffic, catalog, host.clock),
        service="penstock.aigw.v1.TrafficService",
    )
    host.add_servicer(
        job_service_pb2_grpc.add_JobServiceServicer_to_server,
        JobServicer(),
        service="penstock.aigw.v1.JobService",
    )
    host.add_servicer(
        key_service_pb2_grpc.add_KeyServiceServicer_to_server,
        KeyServicer(),
        service="penstock.aigw.v1.KeyService",
    )


def _new_id() -> str:
    return secrets.token_hex(16)
