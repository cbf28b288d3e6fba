"""The Open Inference Protocol over gRPC: bytes in, the model's name read, bytes forwarded, bytes out."""

from collections.abc import AsyncIterator, Callable

from chassis import errors
from chassis.clock import Clock
from chassis.transport.port import Call, DataPath, Reply, UnaryHandler
from inference import grpc_service_pb2 as oip

from aigw.api import wire
from aigw.app.exchange import Exchange
from aigw.app.forwarding import Forwarder
from aigw.app.routing import Router
from aigw.app.streaming import Replay, StreamForwarder
from aigw.domain import failures
from aigw.domain.health import Replica
from aigw.domain.table import Face

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("model_repository", "model_configuration", "statistics", "binary_tensor_data")

_PROBES = ("ModelMetadata", "ModelConfig", "ModelStatistics")


class GrpcInference:
    """The data path of the gateway's gRPC face."""

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        streams: StreamForwarder,
        *,
        clock: Clock,
        name: str,
        version: str,
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._streams = streams
        self._monotonic = clock.monotonic
        self._ask_ready = self._forwarding("ModelReady", probe=True)
        self._name = name
        self._version = version

    def data_path(self) -> DataPath:
        """All methods of the service. What is none of the gateway's business answers UNIMPLEMENTED by
        fallback.
        """
        prefix = f"/{SERVICE}/"
        unary: dict[str, UnaryHandler] = {
            f"{prefix}ModelInfer": self._forwarding("ModelInfer", probe=False),
            f"{prefix}ModelReady": self.model_ready,
            f"{prefix}ServerLive": self.server_live,
            f"{prefix}ServerReady": self.server_ready,
            f"{prefix}ServerMetadata": self.server_metadata,
            f"{prefix}RepositoryIndex": self.repository_index,
        }
        for method in _PROBES:
            unary[prefix + method] = self._forwarding(method, probe=True)
        return DataPath(
            unary=unary,
            stream={f"{prefix}ModelStreamInfer": self.model_stream_infer},
            fallback_unary={SERVICE: self.unavailable},
        )

    def _forwarding(self, name: str, *, probe: bool) -> UnaryHandler:
        forwarder, monotonic, read_names = self._forwarder, self._monotonic, wire.read_names

        async def forward(call: Call, payload: bytes) -> bytes:
            metadata = call.metadata
            identity = call.identity
            exchange = Exchange(
                Face.GRPC,
                name,
                "",
                "",
                metadata=metadata,
                deadline=call.deadline,
                identity=identity.name if identity is not None else "",
                request_bytes=len(payload),
                started=monotonic(),
                probe=probe,
            )
            try:
                exchange.model, exchange.version = read_names(payload)
            except errors.Error as error:
                forwarder.refuse(exchange, error)
                raise
            method = call.method
            reply: Reply = await forwarder.unary(
                exchange,
                lambda replica, deadline: replica.grpc.unary(
                    method, payload, metadata=metadata, deadline=deadline
                ),
            )
            if reply.trailing:
                for key, value in reply.trailing:
                    call.add_trailing(key, value)
            return reply.payload

        return forward

    async def model_ready(self, call: Call, payload: bytes) -> bytes:
        """Asks a replica; a model without a ready one is not ready, which is an answer and no failure."""
        try:
            return await self._ask_ready(call, payload)
        except errors.Unavailable as error:
            if error.reason != "NO_READY_REPLICA":
                raise
            return oip.ModelReadyResponse(ready=False).SerializeToString()

    async def model_stream_infer(self, call: Call, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One stream to one replica, chosen by the first message."""
        first = await anext(payloads, None)
        if first is None:
            return  # nothing asked, nothing answered
        exchange = self._exchange(call, "ModelStreamInfer", len(first))
        try:
            exchange.model, exchange.version = wire.read_names(first)
        except errors.Error as error:
            self._forwarder.refuse(exchange, error)
            raise
        requests = Replay(first, payloads, _same_model(exchange.model, exchange.version))
        method, metadata, deadline = call.method, call.metadata, call.deadline

        def open_stream(replica: Replica, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            return replica.grpc.stream(method, messages, metadata=metadata, deadline=deadline)

        async for answer in self._streams.stream(exchange, requests, open_stream):
            yield answer

    async def server_live(self, call: Call, payload: bytes) -> bytes:
        """The gateway answers, so it lives."""
        return oip.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, call: Call, payload: bytes) -> bytes:
        """The gateway is ready when its table is loaded, which is before it listens."""
        return oip.ServerReadyResponse(ready=True).SerializeToString()

    async def server_metadata(self, call: Call, payload: bytes) -> bytes:
        """The gateway's own name, version and extensions."""
        return oip.ServerMetadataResponse(
            name=self._name, version=self._version, extensions=EXTENSIONS
        ).SerializeToString()

    async def repository_index(self, call: Call, payload: bytes) -> bytes:
        """All routed models with all their versions."""
        request = oip.RepositoryIndexRequest.FromString(payload)
        return oip.RepositoryIndexResponse(
            models=[
                oip.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)
                for name, version, state, reason in repository_index(self._router, ready_only=request.ready)
            ]
        ).SerializeToString()

    async def unavailable(self, call: Call, payload: bytes) -> bytes:
        """Everything else the service may be asked."""
        raise not_forwarded(call.method.rpartition("/")[2])

    def _exchange(self, call: Call, method: str, size: int) -> Exchange:
        identity = call.identity
        return Exchange(
            Face.GRPC,
            method,
            "",
            "",
            metadata=call.metadata,
            deadline=call.deadline,
            identity=identity.name if identity is not None else "",
            request_bytes=size,
            started=self._monotonic(),
        )


def repository_index(router: Router, *, ready_only: bool) -> list[tuple[str, str, str, str]]:
    """Name, version, state and reason of every version of every routed model."""
    found = []
    for name, entry in sorted(router.table.entries.items()):
        for seen in entry.observe():
            ready = seen.ready > 0
            if ready or not ready_only:
                reason = "" if ready else "no ready replica"
                found.append((name, seen.version, "READY" if ready else "UNAVAILABLE", reason))
    return found


def not_forwarded(method: str) -> errors.Unimplemented:
    """The answer to methods that make no sense through a gateway."""
    return errors.Unimplemented(
        f"{method} is not available through the gateway: it concerns one server, not a routed model. "
        "Models are loaded and unloaded by deployments",
        reason="NOT_FORWARDED",
        metadata={"method": method},
    )


def _same_model(model: str, version: str) -> Callable[[bytes], None]:
    """Refuses a message that names another model or version than the stream began with."""

    def check(payload: bytes) -> None:
        name, number = wire.read_names(payload)
        if (name, number) != (model, version):
            raise failures.stream_changes_model(_called(model, version), _called(name, number))

    return check


def _called(model: str, version: str) -> str:
    return f"{model!r} version {version!r}" if version else f"{model!r}"
