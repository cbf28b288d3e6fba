"""A gateway without sockets: the real application over scripted replicas and virtual time."""

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aigw.adapters.memory import MemoryEndpointStore, MemoryRouteStore
from aigw.app.access_log import AccessLog
from aigw.app.catalog import RouteCatalog
from aigw.app.exchange import Exchange
from aigw.app.forwarding import Forwarder
from aigw.app.observation import Observer
from aigw.app.registry import EndpointRegistry
from aigw.app.routing import Router
from aigw.app.streaming import StreamForwarder
from aigw.domain.endpoint import Endpoint, Registration
from aigw.domain.route import Change, Route, RoutePolicy, Target
from aigw.domain.table import Face
from aigw.domain.traffic import TrafficLog
from aigw.domain.upstream import HttpReply
from chassis import errors
from chassis.testing import FakeClock
from chassis.transport.port import Metadata, Reply
from opentelemetry.trace import NoOpTracer

Behaviour = Callable[[bytes], Awaitable[bytes]]


class ScriptedReplica:
    """A replica that answers as it is told: `behaviour` gets the payload and answers or raises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[bytes] = []
        self.deadlines: list[float | None] = []
        self.metadata: list[Metadata] = []
        self.http_status = 200
        self.closed = False
        self.behaviour: Behaviour = self._answer

    async def _answer(self, payload: bytes) -> bytes:
        return self.name.encode()

    def fails(self, *script: errors.Error | None) -> None:
        """Raises these one after the other (None answers), then goes on with the last."""
        steps = list(script)

        async def behave(payload: bytes) -> bytes:
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if step is not None:
                raise step
            return self.name.encode()

        self.behaviour = behave

    def recovers(self) -> None:
        """Answers again."""
        self.behaviour = self._answer

    async def unary(
        self, method: str, payload: bytes, *, metadata: Metadata = (), deadline: float | None = None
    ) -> Reply:
        self.calls.append(payload)
        self.deadlines.append(deadline)
        self.metadata.append(metadata)
        return Reply(await self.behaviour(payload))

    async def stream(
        self,
        method: str,
        payloads: AsyncIterator[bytes],
        *,
        metadata: Metadata = (),
        deadline: float | None = None,
    ) -> AsyncIterator[bytes]:
        async for payload in payloads:
            self.calls.append(payload)
            yield await self.behaviour(payload) + b":" + payload

    async def send(
        self,
        method: str,
        target: str,
        payload: bytes,
        *,
        headers: Metadata = (),
        deadline: float | None = None,
    ) -> HttpReply:
        self.calls.append(payload)
        self.metadata.append(headers)
        body = await self.behaviour(payload)
        return HttpReply(self.http_status, ((b"x-replica", self.name.encode()),), body)

    async def close(self) -> None:
        self.closed = True


class CollectingSink:
    """An access log sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.wrote = threading.Event()
        self.closed = False

    def write(self, lines: bytes) -> None:
        assert lines.endswith(b"\n")
        self.lines += lines.splitlines()
        self.wrote.set()

    def close(self) -> None:
        self.closed = True


class SocketlessGateway:
    """The gateway's application, put together as bootstrap does it."""

    def __init__(self) -> None:
        self.clock = FakeClock(monotonic=time.monotonic())
        self.replicas: dict[str, ScriptedReplica] = {}
        self._ids = iter(f"id{number:06d}" for number in range(10**6))
        self.traffic = TrafficLog(started=self.clock.time())
        self.sink = CollectingSink()
        self.access_log = AccessLog(self.sink, _encode, clock=self.clock)
        self.router = Router(
            connector=self, http_connector=self, traffic=self.traffic, clock=self.clock, epoch="e1"
        )
        self.route_store = MemoryRouteStore()
        self.endpoint_store = MemoryEndpointStore()
        self.catalog = RouteCatalog(self.route_store, clock=self.clock, new_id=self.new_id)
        self.registry = EndpointRegistry(self.endpoint_store, clock=self.clock, new_id=self.new_id)
        self.catalog.on_change(self.router.route_changed)
        self.registry.on_change(self.router.endpoint_changed)
        self.observer = Observer(self.traffic, self.access_log, self.clock)
        self.forwarder = Forwarder(
            self.router, self.observer, self.traffic, clock=self.clock, tracer=NoOpTracer(), tracing=False
        )
        self.streams = StreamForwarder(self.forwarder, self.observer, tracing=False)

    def new_id(self) -> str:
        return next(self._ids)

    def connect(self, address: str) -> ScriptedReplica:
        """Both connectors: a replica's two faces are the same scripted replica."""
        name = address.partition(":")[0]
        replica = self.replicas.get(name)
        if replica is None or replica.closed:
            replica = self.replicas[name] = ScriptedReplica(name)
        return replica

    async def route(
        self,
        *weights: tuple[str, int],
        policy: RoutePolicy | None = None,
        labels: dict[str, str] | None = None,
    ) -> Route:
        """Declares `digits/classifier` with these weights."""
        targets = tuple(Target(version, weight, labels or {}) for version, weight in weights)
        return await self.catalog.create(
            Route("digits", "classifier", targets, policy or RoutePolicy()), Change()
        )

    async def register(
        self,
        name: str,
        version: str = "1",
        *,
        ttl: float = 15.0,
        http: bool = True,
        labels: dict[str, str] | None = None,
    ) -> Registration:
        """Registers the scripted replica of that name."""
        endpoint = Endpoint(
            "digits",
            "classifier",
            name,
            version,
            f"{name}:1",
            f"{name}:2" if http else "",
            labels=labels or {},
        )
        return await self.registry.register(endpoint, ttl)

    def exchange(
        self,
        *,
        version: str = "",
        model: str = "digits/classifier",
        face: Face = Face.GRPC,
        timeout: float | None = None,
        probe: bool = False,
    ) -> Exchange:
        """A call that begins now."""
        now = self.clock.monotonic()
        return Exchange(
            face,
            "ModelInfer",
            model,
            version,
            metadata=(),
            deadline=None if timeout is None else now + timeout,
            identity="",
            request_bytes=3,
            started=now,
            probe=probe,
        )

    async def infer(self, exchange: Exchange | None = None, **asked: object) -> str:
        """One call; the name of the replica that answered."""
        called = exchange or self.exchange(**asked)  # type: ignore[arg-type]
        reply: Reply = await self.forwarder.unary(
            called,
            lambda replica, deadline: replica.grpc.unary("/m", b"abc", deadline=deadline),
        )
        return reply.payload.decode()

    async def infer_many(self, count: int, **asked: object) -> Sequence[str]:
        """Several calls, one after the other."""
        return [await self.infer(**asked) for _ in range(count)]


def _encode(line: object) -> bytes:
    return repr(line).encode()


@pytest.fixture
async def gateway() -> SocketlessGateway:
    """An empty gateway."""
    return SocketlessGateway()
