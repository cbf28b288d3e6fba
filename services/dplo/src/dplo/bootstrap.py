"""The deployment service's only composition root; tests build it through here too."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping

from chassis.bootstrap import Host
from chassis.operations import Operations
from chassis.operations.servicer import OperationsServicer
from chassis.operations.sql import SqlOperationStore
from google.longrunning import operations_pb2_grpc
from penstock.dplo.v1 import (
    cluster_service_pb2_grpc,
    deployment_service_pb2_grpc,
    source_service_pb2_grpc,
)

from dplo.adapters.gateway import AigwGateway
from dplo.adapters.local.capacity import find_machine
from dplo.adapters.local.operator import NAME as LOCAL
from dplo.adapters.local.operator import LocalCluster, LocalOptions
from dplo.adapters.local.supervision import RestartPolicy
from dplo.adapters.packages.cache import PackageCache
from dplo.adapters.packages.directory import DirectoryPackages
from dplo.adapters.packages.service import ServicePackages
from dplo.adapters.rpc import Remote
from dplo.adapters.sql.store import SqlStore, open_engine
from dplo.adapters.tracing import SpanTracer
from dplo.api.cluster_servicer import ClusterServicer
from dplo.api.deployment_servicer import DeploymentServicer
from dplo.api.rollouts import RolloutOperations
from dplo.api.source_servicer import SourceServicer
from dplo.app.controller import Controller, Report
from dplo.app.deployments import Deployments
from dplo.app.faults import fault_point
from dplo.app.notices import Notices
from dplo.app.observe import World
from dplo.app.ports import PackageSource, Placement
from dplo.app.reconcile import Pace, Reconciler
from dplo.app.retry import Backoff
from dplo.app.watch import Sighting, watch
from dplo.domain.names import DeploymentName
from dplo.settings import DploSettings, LocalSettings

NAME = "dplo"


async def build(host: Host, settings: DploSettings) -> None:
    """Puts the service together: store, world, reconciler, faces."""
    fault = fault_point(os.environ)
    engine = open_engine(settings.store.path)
    store = await host.enter(SqlStore(engine))
    operation_store = SqlOperationStore(engine)
    await operation_store.prepare()
    cache = PackageCache(settings.local.state_dir / "packages")
    gateway = AigwGateway(await host.enter(Remote.open(settings.gateway, "the gateway", host.telemetry)))
    controllers: list[Controller] = []

    def changed(name: DeploymentName) -> None:
        for controller in controllers:
            controller.wake(name)

    local = LocalCluster(
        _local_options(settings.local),
        find_machine(settings.local.max_replicas),
        host.clock,
        package_path=cache.path,
        environment=lambda placement: replica_environment(settings, placement, os.environ),
        on_change=changed,
        report=lambda replica, error: host.log.error("replica neglected", replica=replica, exc_info=error),
        fault=fault,
    )
    clusters = {LOCAL: await host.enter(local)}
    packages = await _packages(host, settings, cache)
    world = World(packages, clusters, gateway, gateway)
    notices, tracer = Notices(), SpanTracer(host.telemetry)
    pace, backoff = _pace(settings)
    reconciler = Reconciler(
        store=store,
        history=store,
        world=world,
        clock=host.clock,
        tracer=tracer,
        notices=notices,
        pace=pace,
        backoff=backoff,
        fault=fault,
    )
    controller = Controller(reconciler, store, host.clock, report=_reporter(host), backoff=backoff)
    controllers.append(controller)
    deployments = Deployments(
        store=store,
        history=store,
        world=world,
        clock=host.clock,
        tracer=tracer,
        notices=notices,
        wake=controller.wake,
    )
    ending = asyncio.Event()
    await _add_faces(host, deployments, operation_store, clusters, store, notices, ending)
    host.add_task("local-cluster", local.run)
    host.add_task("controller", controller.run)

    async def end_watches() -> None:
        ending.set()

    host.on_drain(end_watches)


async def _add_faces(
    host: Host,
    deployments: Deployments,
    operation_store: SqlOperationStore,
    clusters: Mapping[str, LocalCluster],
    store: SqlStore,
    notices: Notices,
    ending: asyncio.Event,
) -> None:
    rollouts = RolloutOperations(deployments)
    operations = await host.enter(Operations(operation_store, clock=host.clock, resumers=rollouts.resumers))

    def watching(name: DeploymentName, after: int | None) -> AsyncIterator[Sighting]:
        return until(ending, watch(store, store, notices, name, after))

    host.add_servicer(
        deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server,
        DeploymentServicer(deployments, operations, rollouts, watching),
        service="penstock.dplo.v1.DeploymentService",
    )
    host.add_servicer(
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server,
        ClusterServicer(clusters),
        service="penstock.dplo.v1.ClusterService",
    )
    host.add_servicer(
        source_service_pb2_grpc.add_SourceServiceServicer_to_server,
        SourceServicer(),
        service="penstock.dplo.v1.SourceService",
    )
    host.add_servicer(
        operations_pb2_grpc.add_OperationsServicer_to_server,
        OperationsServicer(operations),
        service="google.longrunning.Operations",
    )


async def until(ending: asyncio.Event, items: AsyncIterator[Sighting]) -> AsyncIterator[Sighting]:
    """The items until the service drains: a watch would keep it from ending."""
    ended = asyncio.ensure_future(ending.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait((following, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait((following,))
            if following.cancelled():
                return
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        ended.cancel()


def replica_environment(
    settings: DploSettings, placement: Placement, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a replica: this machine's, the model server's settings, and what is declared.

    Settings of the model server that stand in this service's own environment are handed on (telemetry,
    pickles), but for those that say who a replica is and where it listens.
    """
    version = placement.version
    own = ("MDS_GRPC__", "MDS_REST__", "MDS_STORE__", "MDS_ADDRESSES_FILE", "DPLO_")
    environment = {name: value for name, value in inherited.items() if not name.startswith(own)}
    labels = {"cluster": version.cluster.rpartition("/")[2], **dict(version.labels)}
    environment |= {
        "PYTHONUNBUFFERED": "1",
        "MDS_PROJECT": placement.model.project,
        "MDS_INSTANCE_ID": placement.replica,
        "MDS_DIGEST": version.package.digest,
        "MDS_REGISTRY__ADDRESS": settings.local.registry_address or settings.gateway.address,
        "MDS_REGISTRY__LABELS": json.dumps(labels, sort_keys=True),
        "MDS_DRAIN__LIMIT": f"{version.drain_timeout:g}",
    }
    if version.server.max_batch_items:
        environment["MDS_MODEL__MAX_ITEMS"] = str(version.server.max_batch_items)
    if version.server.instances:
        environment["MDS_MODEL__INSTANCES"] = str(version.server.instances)
    return {**environment, **dict(version.environment)}


async def _packages(host: Host, settings: DploSettings, cache: PackageCache) -> PackageSource:
    if settings.packages.backend == "directory":
        return DirectoryPackages(settings.packages.directory, cache)
    remote = await host.enter(Remote.open(settings.packages, "the package service", host.telemetry))
    return ServicePackages(remote, cache)


def _local_options(settings: LocalSettings) -> LocalOptions:
    return LocalOptions(
        state_dir=settings.state_dir.absolute(),
        command=settings.command or (sys.executable, "-m", "mds"),
        host=settings.host,
        ports=settings.port_range,
        log_bytes=settings.log_bytes,
        logs_kept=settings.logs_kept,
        probe_interval=settings.probe_interval,
        unhealthy_limit=settings.unhealthy_limit,
        stop_on_exit=settings.stop_on_exit,
        restart=RestartPolicy(
            settings.restart_first_delay,
            settings.restart_largest_delay,
            settings.stable_after,
            settings.looping_after,
        ),
    )


def _pace(settings: DploSettings) -> tuple[Pace, Backoff]:
    reconcile = settings.reconcile
    pace = Pace(reconcile.active_interval, reconcile.idle_interval)
    return pace, Backoff(reconcile.first_retry, reconcile.largest_retry)


def _reporter(host: Host) -> Report:
    """Logs what a reconciliation did not expect."""

    def report(deployment: str, error: BaseException) -> None:
        host.log.error("reconciliation failed, trying again", deployment=deployment, exc_info=error)

    return report
