"""`penstock.mds.v1.ModelService`: looks into a model server and steers it."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chassis import errors
from google.protobuf.timestamp_pb2 import Timestamp
from penstock.mds.v1 import model_service_pb2 as pb
from penstock.mds.v1 import model_service_pb2_grpc as pb_grpc

from mds.api.convert import batching_from_proto, batching_to_proto, manifest_to_proto
from mds.app.dataplane import DataPlane
from mds.app.model import ServedModel, State

_STATES = {
    State.LOADING: pb.ServedModel.STATE_LOADING,
    State.READY: pb.ServedModel.STATE_READY,
    State.DRAINING: pb.ServedModel.STATE_DRAINING,
    State.UNLOADED: pb.ServedModel.STATE_UNLOADED,
    State.FAILED: pb.ServedModel.STATE_FAILED,
}


@dataclass
class ServerInfo:
    """What is known of the process, and its registration as it is now."""

    instance_id: str
    version: str
    started: float
    runtimes: Mapping[str, str]
    provider: str
    endpoint: str
    registered: Callable[[], bool]
    leave: Callable[[], Awaitable[None]]
    draining_since: float = 0.0


class ModelServicer(pb_grpc.ModelServiceServicer):
    """The methods over one data plane."""

    def __init__(self, plane: DataPlane, info: ServerInfo, now: Callable[[], float]) -> None:
        self._plane = plane
        self._info = info
        self._now = now

    async def GetModelServer(self, request: pb.GetModelServerRequest, context: Any) -> pb.ModelServer:
        """The process."""
        info = self._info
        server = pb.ModelServer(
            instance_id=info.instance_id,
            version=info.version,
            python_version=platform.python_version(),
            runtimes=dict(info.runtimes),
            devices=[
                pb.Device(
                    name="cpu",
                    kind=pb.Device.KIND_CPU,
                    model=platform.machine(),
                    cores=len(os.sched_getaffinity(0)),
                )
            ],
            start_time=_time(info.started),
            memory_bytes=_resident_bytes(),
        )
        if info.provider:
            server.registration.provider = info.provider
            server.registration.endpoint = info.endpoint
            server.registration.registered = info.registered()
        if info.draining_since:
            server.drain.draining = True
            server.drain.in_flight = sum(model.in_flight for model in self._plane.models)
            server.drain.start_time.CopyFrom(_time(info.draining_since))
        return server

    async def GetServedModel(self, request: pb.GetServedModelRequest, context: Any) -> pb.ServedModel:
        """One model."""
        return served_model(self._find(request.name))

    async def ListServedModels(
        self, request: pb.ListServedModelsRequest, context: Any
    ) -> pb.ListServedModelsResponse:
        """All models: they are few, and one page."""
        if request.page_token:
            raise errors.InvalidArgument(
                "the page token is not one of this service", reason="PAGE_TOKEN_INVALID"
            )
        models = sorted(self._plane.models, key=lambda model: model.name)
        return pb.ListServedModelsResponse(served_models=[served_model(model) for model in models])

    async def WatchServedModel(
        self, request: pb.WatchServedModelRequest, context: Any
    ) -> AsyncIterator[pb.ServedModel]:
        """The state at once, then each change of it, and statistics at the interval asked for."""
        model = self._find(request.name)
        interval = request.interval.ToNanoseconds() * 1e-9 if request.HasField("interval") else 0.0
        told: State | None = None
        next_time = 0.0
        while True:
            due = interval > 0 and self._now() >= next_time
            if model.state is not told or due:
                told, next_time = model.state, self._now() + interval
                yield served_model(model)
            await asyncio.sleep(min(0.2, interval) if interval else 0.2)

    async def DrainModelServer(self, request: pb.DrainModelServerRequest, context: Any) -> pb.ModelServer:
        """Leaves the route provider. New requests are still answered, as some callers learn of it late."""
        if not self._info.draining_since:
            self._info.draining_since = self._now()
            await self._info.leave()
        return await self.GetModelServer(pb.GetModelServerRequest(), context)

    async def ResumeModelServer(self, request: pb.ResumeModelServerRequest, context: Any) -> pb.ModelServer:
        """Not yet."""
        raise unavailable("ResumeModelServer")

    async def CheckServedModel(
        self, request: pb.CheckServedModelRequest, context: Any
    ) -> pb.CheckServedModelResponse:
        """Not yet."""
        raise unavailable("CheckServedModel")

    async def TuneServedModel(self, request: pb.TuneServedModelRequest, context: Any) -> pb.ServedModel:
        """Changes batching of a model."""
        model = self._find(request.name)
        try:
            model.tune(batching_from_proto(request.batching))
        except ValueError as error:
            raise errors.InvalidArgument(
                str(error),
                reason="BATCHING_INVALID",
                violations=[errors.FieldViolation("batching", str(error))],
            ) from error
        return served_model(model)

    def _find(self, name: str) -> ServedModel:
        model_id = name.removeprefix("servedModels/")
        for model in self._plane.models:
            if model.name == model_id:
                return model
        raise errors.NotFound(
            f"this server has no model {model_id!r}", reason="MODEL_UNKNOWN", metadata={"model": model_id}
        )


def unavailable(method: str) -> errors.Unimplemented:
    """The error of methods that are in the contract and not here yet."""
    return errors.Unimplemented(
        f"{method} is not available in this version of Penstock",
        reason="METHOD_UNAVAILABLE",
        metadata={"method": method},
    )


def served_model(model: ServedModel) -> pb.ServedModel:
    """A model as its resource."""
    project = model.project or "default"
    message = pb.ServedModel(
        name=f"servedModels/{model.name}",
        package=f"projects/{project}/models/{model.name}/packages/{model.version}",
        digest=model.digest,
        version=model.version,
        manifest=manifest_to_proto(model.manifest),
        state=_STATES[model.state],
        batching=batching_to_proto(model.batching),
        statistics=_statistics(model),
        instances=[
            pb.ModelInstance(index=index, device=one.device, providers=one.providers)
            for index, one in enumerate(model.instances)
        ],
    )
    if model.load_time:
        message.load_time.CopyFrom(_time(model.load_time))
        message.load_duration.FromNanoseconds(int(model.load_seconds * 1e9))
    batcher = model.batcher
    if batcher is not None:
        message.queue.requests = batcher.waiting
        message.queue.items = batcher.waiting_items
        message.queue.capacity = batcher.max_queue
        message.queue.oldest.FromNanoseconds(batcher.oldest_ns)
        message.queue.expected_wait.FromNanoseconds(int(batcher.expected_wait() * 1e9))
        for instance, worker in zip(message.instances, batcher.workers, strict=False):
            instance.busy = worker.busy
    return message


def _statistics(model: ServedModel) -> pb.ServingStatistics:
    s = model.statistics
    message = pb.ServingStatistics(
        succeeded=s.succeeded,
        failed=s.failed,
        shed=s.shed,
        rejected=s.rejected,
        items=s.items,
        batches=s.executions,
        batch_sizes={size: batch.count for size, batch in s.batches.items()},
    )
    message.queue_time.FromNanoseconds(s.queue_ns)
    message.preprocess_time.FromNanoseconds(s.preprocess_ns)
    message.inference_time.FromNanoseconds(s.inference_ns)
    message.postprocess_time.FromNanoseconds(s.postprocess_ns)
    if s.last_request:
        message.last_request_time.CopyFrom(_time(s.last_request))
    return message


def _time(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return message


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
