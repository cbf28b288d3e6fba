"""Composition of the model server and of the package service."""

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator

from chassis import errors, openapi
from chassis.bootstrap import Host
from chassis.channel import open_channel
from chassis.registry.embedded import EmbeddedRegistry
from chassis.registry.port import Endpoint
from chassis.registry.registration import KeepRegistered
from penstock.mds.v1 import model_service_pb2_grpc, package_service_pb2_grpc

from mds.adapters import archive, runtimes
from mds.adapters.code import forget_modules, import_serving_class
from mds.adapters.store import open_store, spool_error, utc_now
from mds.adapters.unpacked import unpack
from mds.api.inference_rest import RestInference
from mds.api.inference_service import SERVICE, InferenceService
from mds.api.metrics import ModelMetrics
from mds.api.model_servicer import ModelServicer, ServerInfo
from mds.api.package_servicer import PackageServicer
from mds.app.dataplane import DataPlane
from mds.app.model import ModelTools, ServedModel, with_overrides
from mds.app.packages import Packages
from mds.settings import ModelServerSettings, PackageServiceSettings, cache_home, data_home

MODEL_SERVER = "mds"
PACKAGE_SERVER = "mds-packages"
PACKAGE_SERVICE = "penstock.mds.v1.PackageService"
MODEL_SERVICE = "penstock.mds.v1.ModelService"


async def build_model_server(host: Host, settings: ModelServerSettings) -> None:
    """A server of one package."""
    model = await _loaded_model(host, settings)
    plane = DataPlane([model], host.telemetry.tracer if host.telemetry.tracing else None)
    model.on_change = lambda: host.set_serving(SERVICE, plane.ready)
    registration = _Registration(host, settings, model)
    await host.enter(_unloaded_at_end(model))
    service = InferenceService(plane, host.version, may_unload=registration.refuse_unload)
    host.add_data_path(service.data_path(), services=[SERVICE])
    host.add_http(
        RestInference(
            plane,
            host.version,
            max_body_bytes=settings.limits.max_body_bytes,
            may_unload=registration.refuse_unload,
        ),
        described=openapi.open_inference("{model}", statistics=True, repository=True),
    )
    info = ServerInfo(
        instance_id=registration.instance_id,
        version=host.version,
        started=host.clock.time(),
        runtimes=runtimes.installed(),
        provider="embedded" if settings.registry.address else "",
        endpoint=registration.name,
        registered=lambda: registration.registered,
        leave=registration.leave,
    )
    servicer = ModelServicer(plane, info, host.clock.time)
    host.add_servicer(
        model_service_pb2_grpc.add_ModelServiceServicer_to_server, servicer, service=MODEL_SERVICE
    )
    host.telemetry.registry.register(ModelMetrics(lambda: plane.models))
    await registration.prepare()


async def build_package_service(host: Host, settings: PackageServiceSettings) -> None:
    """The service that keeps packages."""
    store = open_store(settings.store.url, data_home() / "packages")
    packages = Packages(
        store,
        spool=store.spool,
        verify=functools.partial(
            archive.verify, max_bytes=settings.max_package_bytes, allow_pickles=settings.allow_pickles
        ),
        guard=spool_error,
        max_bytes=settings.max_package_bytes,
        now=utc_now,
    )
    host.add_servicer(
        package_service_pb2_grpc.add_PackageServiceServicer_to_server,
        PackageServicer(packages),
        service=PACKAGE_SERVICE,
    )

    async def sweep() -> None:
        swept = await store.sweep(utc_now())
        if swept:
            host.log.info("swept what crashed uploads left", objects=swept)

    host.add_task("sweep", sweep)


async def _loaded_model(host: Host, settings: ModelServerSettings) -> ServedModel:
    try:
        info, folder = await asyncio.to_thread(
            unpack,
            settings.package,
            settings.cache or cache_home() / "packages",
            expected_digest=settings.digest,
            max_bytes=settings.max_package_bytes,
            allow_pickles=settings.allow_pickles,
        )
        batching, execution = with_overrides(
            info.manifest.batching,
            info.manifest.execution,
            max_items=settings.model.max_items,
            instances=settings.model.instances,
            threads=settings.model.threads,
        )
        model = ServedModel(
            info.manifest,
            info.digest,
            folder,
            ModelTools(runtimes.runtime, import_serving_class, forget_modules, host.log),
            project=settings.project or None,
            batching=batching,
            execution=execution,
        )
        await model.load()
    except (errors.NotFound, errors.DataLoss, errors.ResourceExhausted) as error:
        # At start these are wrong settings: a short line for the operator, not a traceback.
        raise errors.FailedPrecondition(
            f"cannot serve {settings.package}: {error.message}", reason=error.reason, metadata=error.metadata
        ) from error
    return model


@contextlib.asynccontextmanager
async def _unloaded_at_end(model: ServedModel) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await model.unload()


class _Registration:
    """The server's place in the route provider, if it is told one."""

    def __init__(self, host: Host, settings: ModelServerSettings, model: ServedModel) -> None:
        self._host = host
        self._settings = settings
        self._model = model
        self._keep: KeepRegistered | None = None
        self._registry: EmbeddedRegistry | None = None
        self.instance_id = settings.instance_id or secrets.token_hex(4)

    @property
    def name(self) -> str:
        """Resource name of the endpoint; empty if there is none."""
        if not self._settings.registry.address:
            return ""
        project = self._settings.project or "default"
        return f"projects/{project}/models/{self._model.name}/endpoints/{self.instance_id}"

    @property
    def registered(self) -> bool:
        """Whether a lease is held."""
        return self._keep is not None and self._keep.registered

    async def prepare(self) -> None:
        """Has it registered once the faces listen, and deregistered first thing at the end."""
        if not self._settings.registry.address:
            return
        channel = await self._host.enter(open_channel(self._settings.registry, self._host.telemetry))
        self._registry = EmbeddedRegistry(channel)
        self._host.add_task("registration", self._run)
        self._host.on_drain(self.leave)

    async def _run(self) -> None:
        assert self._registry is not None
        self._keep = KeepRegistered(
            self._registry, self._endpoint(), ttl=self._settings.registry.ttl, clock=self._host.clock
        )
        await self._keep.run()

    def _endpoint(self) -> Endpoint:
        settings, model = self._settings, self._model
        return Endpoint(
            project=settings.project or "default",
            model=model.name,
            version=model.version,
            instance_id=self.instance_id,
            grpc_address=settings.advertise.grpc or self._host.grpc_address,
            http_address=settings.advertise.rest or self._host.rest_address or None,
            digest=model.digest,
            labels=settings.registry.labels,
        )

    async def leave(self) -> None:
        """Deregisters, if registered."""
        if self._keep is not None:
            await self._keep.deregister()

    def refuse_unload(self) -> None:
        """Raises FailedPrecondition while callers may be routed here."""
        if self.registered:
            raise errors.FailedPrecondition(
                "this server is registered with a gateway, which would go on routing here: take it "
                "out of the "
                "deployment instead, or drain it first (ModelService.DrainModelServer)",
                reason="SERVER_REGISTERED",
            )
