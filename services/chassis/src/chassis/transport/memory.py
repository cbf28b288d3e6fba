"""The data-path transport inside one process, for tests and single-process use.

Honours deadlines, cancellation, metadata hygiene and trailing metadata as the wire does, so that code tested
against it meets no surprise on grpc.aio.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from chassis import errors
from chassis.identity import Identity
from chassis.transport.metadata import forwardable
from chassis.transport.port import Call, DataPath, Metadata, Reply, StreamHandler, UnaryHandler


class MemoryNetwork:
    """Addresses and the data paths served there; it is also the `Connector` to them."""

    def __init__(self, *, identity: Identity | None = None) -> None:
        self._served: dict[str, DataPath] = {}
        self._identity = identity

    def serve(self, address: str, data_path: DataPath) -> None:
        """Serves a data path under an address, replacing what was there."""
        self._served[address] = data_path

    def stop(self, address: str) -> None:
        """Nothing listens at the address any more: calls to it fail with UNAVAILABLE."""
        self._served.pop(address, None)

    def connect(self, address: str) -> "MemoryUpstream":
        """An upstream for the address; whether anything is served there shows at the first call."""
        return MemoryUpstream(self, address)

    def find(self, address: str) -> DataPath:
        """The data path at an address; raises Unavailable like a refused connection."""
        try:
            return self._served[address]
        except KeyError:
            raise errors.Unavailable(
                f"nothing listens at {address}", reason="CONNECTION_REFUSED", metadata={"address": address}
            ) from None

    def call(self, method: str, metadata: Metadata, deadline: float | None) -> Call:
        """The inbound side of a call made through this network."""
        return Call(
            method, metadata=forwardable(metadata), deadline=deadline, peer="memory", identity=self._identity
        )


class MemoryUpstream:
    """Calls into a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self._address = address
        self._closed = False

    async def unary(
        self, method: str, payload: bytes, *, metadata: Metadata = (), deadline: float | None = None
    ) -> Reply:
        """Makes one call; a stream handler serves it as a stream of one message."""
        handler, streaming = self._find(method)
        call = self._network.call(method, metadata, deadline)
        async with _until(deadline):
            if streaming is None and handler is not None:
                return Reply(await handler(call, payload), call.trailing)
            assert streaming is not None
            answers = [answer async for answer in streaming(call, _one(payload))]
        if len(answers) != 1:
            raise errors.Internal(
                f"{method} answered a unary call with {len(answers)} messages", reason="NOT_UNARY"
            )
        return Reply(answers[0], call.trailing)

    async def stream(
        self,
        method: str,
        payloads: AsyncIterator[bytes],
        *,
        metadata: Metadata = (),
        deadline: float | None = None,
    ) -> AsyncIterator[bytes]:
        """Makes one streaming call; a unary handler serves it when exactly one message comes."""
        handler, streaming = self._find(method)
        call = self._network.call(method, metadata, deadline)
        if streaming is None and handler is not None:
            requests = [payload async for payload in payloads]
            if len(requests) != 1:
                raise errors.Internal(
                    f"{method} is unary and got {len(requests)} messages", reason="NOT_UNARY"
                )
            async with _until(deadline):
                answer = await handler(call, requests[0])
            yield answer
            return
        assert streaming is not None
        answers = streaming(call, payloads)
        try:
            while True:
                async with _until(deadline):
                    try:
                        item = await anext(answers)
                    except StopAsyncIteration:
                        return
                yield item
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()

    async def close(self) -> None:
        """Refuses further calls."""
        self._closed = True

    def _find(self, method: str) -> tuple[UnaryHandler | None, StreamHandler | None]:
        if self._closed:
            raise errors.Cancelled(f"the connection to {self._address} is closed", reason="CONNECTION_CLOSED")
        path = self._network.find(self._address)
        service = method[1 : method.rfind("/")]
        unary = path.unary.get(method)
        stream = path.stream.get(method)
        if unary is None and stream is None:
            unary = path.fallback_unary.get(service)
            stream = path.fallback_stream.get(service) if unary is None else None
        if unary is None and stream is None:
            raise errors.Unimplemented(
                f"{self._address} does not serve {method}",
                reason="METHOD_NOT_FOUND",
                metadata={"method": method},
            )
        return unary, stream


async def _one(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


@contextlib.asynccontextmanager
async def _until(deadline: float | None) -> AsyncIterator[None]:
    """Ends the body with DeadlineExceeded at the deadline, as the wire would."""
    if deadline is None:
        yield
        return
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise errors.DeadlineExceeded("the deadline has passed", reason="DEADLINE_EXPIRED")
    try:
        async with asyncio.timeout(remaining):
            yield
    except TimeoutError as error:
        raise errors.DeadlineExceeded("the deadline has passed", reason="DEADLINE_EXCEEDED") from error
