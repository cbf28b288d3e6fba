"""`inference.GRPCInferenceService`: all its methods on the data path, as bytes in and bytes out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from chassis import errors
from chassis.transport.port import Call, DataPath, UnaryHandler
from google.protobuf.message import DecodeError, Message
from inference import grpc_service_pb2 as pb

from mds.api.describe import model_config, model_metadata, model_statistics, repository_index
from mds.api.infer_grpc import InferHandler, parse, shared_memory
from mds.app.dataplane import DataPlane
from mds.app.model import ServedModel

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
STREAM_WINDOW = 32


class InferenceService:
    """The methods over one data plane."""

    def __init__(self, plane: DataPlane, version: str, *, may_unload: Callable[[], None]) -> None:
        self._plane = plane
        self._version = version
        self._may_unload = may_unload
        self.infer = InferHandler(plane)

    def data_path(self) -> DataPath:
        """All methods by their full name."""
        unary: dict[str, UnaryHandler] = {}
        methods: Sequence[tuple[str, type[Message], Callable[[Any], Awaitable[Message]]]] = (
            ("ServerLive", pb.ServerLiveRequest, self._server_live),
            ("ServerReady", pb.ServerReadyRequest, self._server_ready),
            ("ModelReady", pb.ModelReadyRequest, self._model_ready),
            ("ServerMetadata", pb.ServerMetadataRequest, self._server_metadata),
            ("ModelMetadata", pb.ModelMetadataRequest, self._model_metadata),
            ("ModelConfig", pb.ModelConfigRequest, self._model_config),
            ("ModelStatistics", pb.ModelStatisticsRequest, self._model_statistics),
            ("RepositoryIndex", pb.RepositoryIndexRequest, self._repository_index),
            ("RepositoryModelLoad", pb.RepositoryModelLoadRequest, self._load),
            ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, self._unload),
            ("TraceSetting", pb.TraceSettingRequest, _no_trace_setting),
            ("LogSettings", pb.LogSettingsRequest, _no_log_settings),
        )
        for name, kind, answer in methods:
            unary[name] = _method(kind, answer)
        for region in ("SystemSharedMemory", "CudaSharedMemory"):
            for verb in ("Status", "Register", "Unregister"):
                unary[f"{region}{verb}"] = _no_shared_memory
        unary["ModelInfer"] = self.infer
        return DataPath(
            unary={f"/{SERVICE}/{name}": handler for name, handler in unary.items()},
            stream={f"/{SERVICE}/ModelStreamInfer": self.stream_infer},
        )

    async def _server_live(self, request: pb.ServerLiveRequest) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest) -> Message:
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> Message:
        model = self._plane.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=model.batcher is not None)

    async def _server_metadata(self, request: pb.ServerMetadataRequest) -> Message:
        return pb.ServerMetadataResponse(name="penstock", version=self._version, extensions=EXTENSIONS)

    async def _model_metadata(self, request: pb.ModelMetadataRequest) -> Message:
        return model_metadata(self._plane.find(request.name, request.version), request.name)

    async def _model_config(self, request: pb.ModelConfigRequest) -> Message:
        model = self._plane.find(request.name, request.version)
        return pb.ModelConfigResponse(config=model_config(model, request.name))

    async def _model_statistics(self, request: pb.ModelStatisticsRequest) -> Message:
        found = [self._plane.find(request.name, request.version)] if request.name else self._plane.models
        return pb.ModelStatisticsResponse(
            model_stats=[model_statistics(model, request.name or model.name) for model in found]
        )

    async def _repository_index(self, request: pb.RepositoryIndexRequest) -> Message:
        return repository_index(self._plane.models, only_ready=request.ready)

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> Message:
        model = self._repository_model(request)
        if request.parameters:
            raise errors.Unimplemented(
                "loading with parameters (config or files in the request) is not available in this "
                "version of "
                "Penstock: build a package",
                reason="LOAD_PARAMETERS_UNAVAILABLE",
            )
        await model.load()
        return pb.RepositoryModelLoadResponse(model_name=model.name, is_loaded=True)

    async def _unload(self, request: pb.RepositoryModelUnloadRequest) -> Message:
        model = self._repository_model(request)
        self._may_unload()
        await model.unload()
        return pb.RepositoryModelUnloadResponse(model_name=model.name, is_unloaded=True)

    def _repository_model(self, request: Any) -> ServedModel:
        # KServe's clients send the model's name as field 1, which is the repository's name for Triton's.
        return self._plane.find(request.model_name or request.repository_name, "")

    async def stream_infer(self, call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answers each request of a stream in order; several are under way at once, so that they can be
        batched.
        """
        running: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_WINDOW)
        tasks: set[asyncio.Task[bytes]] = set()
        reader = asyncio.create_task(self._read(call, payloads, running, tasks))
        try:
            while (task := await running.get()) is not None:
                yield await task
            await reader
        finally:
            reader.cancel()
            for left in tasks:
                left.cancel()
            for ended in (reader, *list(tasks)):
                with suppress(asyncio.CancelledError, Exception):
                    await ended

    async def _read(
        self,
        call: Call,
        payloads: AsyncIterator[bytes],
        running: "asyncio.Queue[asyncio.Task[bytes] | None]",
        tasks: "set[asyncio.Task[bytes]]",
    ) -> None:
        try:
            async for payload in payloads:
                task = asyncio.create_task(self._answer_in_stream(call, payload))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await running.put(task)
        except Exception:
            await running.put(None)
            raise
        await running.put(None)

    async def _answer_in_stream(self, call: Call, payload: bytes) -> bytes:
        request_id, marks_end = "", False
        try:
            request, raw = parse(payload)
            request_id = request.id
            end = "triton_enable_empty_final_response"
            marks_end = bool(request.parameters) and request.parameters[end].bool_param
            answer = pb.ModelInferResponse.FromString(await self.infer.answer(request, raw, call.deadline))
            if marks_end:
                answer.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=answer).SerializeToString()
        except errors.Error as error:
            # As Triton does: the stream goes on, and the id says whose error this is.
            answer = pb.ModelInferResponse(id=request_id)
            if marks_end:
                answer.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(
                error_message=f"{error.code.name}: {error}", infer_response=answer
            ).SerializeToString()


def _method(kind: type[Message], answer: Callable[[Any], Awaitable[Message]]) -> UnaryHandler:
    async def handle(call: Call, payload: bytes) -> bytes:
        try:
            request = kind.FromString(payload)
        except DecodeError as error:
            raise errors.InvalidArgument(
                f"the request is no inference.{kind.DESCRIPTOR.name}: it cannot be parsed",
                reason="REQUEST_MALFORMED",
            ) from error
        return (await answer(request)).SerializeToString()

    return handle


async def _no_shared_memory(call: Call, payload: bytes) -> bytes:
    raise shared_memory()


async def _no_trace_setting(request: pb.TraceSettingRequest) -> Message:
    raise errors.Unimplemented(
        "trace settings cannot be changed while the server runs in this version of Penstock: see "
        "MDS_TELEMETRY__*",
        reason="TRACE_SETTING_UNAVAILABLE",
    )


async def _no_log_settings(request: pb.LogSettingsRequest) -> Message:
    raise errors.Unimplemented(
        "log settings cannot be changed while the server runs in this version of Penstock: see "
        "MDS_TELEMETRY__LOG_LEVEL",
        reason="LOG_SETTINGS_UNAVAILABLE",
    )
