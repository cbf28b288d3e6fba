"""The data-path port: what MDS inference and AIGW forwarding are written against.

A call is a method, metadata, payload bytes, a deadline and cancellation; an upstream takes calls on the same
terms. Payloads are opaque here: whoever needs fields out of them parses them. Nothing in this module, and
nothing written against it, knows grpc.aio; `chassis.transport.grpcio` is its first adapter,
`chassis.transport.memory` the one for tests.

Cancellation is asyncio's own: a caller that goes away cancels the handler's task, and cancelling an upstream
call (or closing its stream) cancels it on the wire. Failures are `chassis.errors.Error`, in both directions.
Deadlines are `time.monotonic()` seconds.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chassis.identity import Identity

Metadata = tuple[tuple[str, str | bytes], ...]


class Call:
    """One inbound call, as a handler sees it. Adapters subclass it to read what is costly lazily.

    `trailing` is what the handler added for the end of the answer; adapters send it with success and failure.
    """

    __slots__ = ("_deadline", "_identity", "_metadata", "_peer", "method", "trailing")

    def __init__(
        self,
        method: str,
        *,
        metadata: Metadata = (),
        deadline: float | None = None,
        peer: str = "",
        identity: Identity | None = None,
    ) -> None:
        self.method = method
        self._metadata = metadata
        self._deadline = deadline
        self._peer = peer
        self._identity = identity
        self.trailing: Metadata = ()

    @property
    def metadata(self) -> Metadata:
        """The caller's metadata in order, keys in lower case; values of `-bin` keys are bytes."""
        return self._metadata

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in `time.monotonic()` seconds; None when it set no deadline."""
        return self._deadline

    @property
    def peer(self) -> str:
        """The address the call came from, for logs."""
        return self._peer

    @property
    def identity(self) -> Identity | None:
        """Who calls; None where the service runs without authentication."""
        return self._identity

    def remaining(self) -> float | None:
        """Seconds until the deadline, never below zero; None without a deadline."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def metadata_value(self, key: str) -> str | None:
        """The first text value of a (lower-case) key; None when absent or binary."""
        for name, value in self.metadata:
            if name == key:
                return value if isinstance(value, str) else None
        return None

    def add_trailing(self, key: str, value: str | bytes) -> None:
        """Adds trailing metadata to the answer; bytes need a key that ends in `-bin`."""
        self.trailing = (*self.trailing, (key, value))


UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
# Bidirectional; client and server streaming are special cases of it.
StreamHandler = Callable[[Call, AsyncIterator[bytes]], AsyncIterator[bytes]]


@dataclass(frozen=True)
class DataPath:
    """The methods a service serves on its hot path, by full name (`/package.Service/Method`).

    The fallbacks serve every other method of a service, keyed by the service's full name (`package.Service`),
    so that a gateway can forward methods it does not know. On the wire a unary call is a stream of one
    message, so `fallback_stream` alone can serve both kinds.
    """

    unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    stream: Mapping[str, StreamHandler] = field(default_factory=dict)
    fallback_unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    fallback_stream: Mapping[str, StreamHandler] = field(default_factory=dict)


class Reply:
    """An upstream's answer to a unary call: the payload and the trailing metadata that came after it."""

    __slots__ = ("payload", "trailing")

    def __init__(self, payload: bytes, trailing: Metadata = ()) -> None:
        self.payload = payload
        self.trailing = trailing


class Upstream(Protocol):
    """A connection to one address, shared by any number of concurrent calls."""

    async def unary(
        self, method: str, payload: bytes, *, metadata: Metadata = (), deadline: float | None = None
    ) -> Reply:
        """Makes one call. Reserved and hop-by-hop metadata is dropped. Raises `chassis.errors.Error`."""
        ...

    def stream(
        self,
        method: str,
        payloads: AsyncIterator[bytes],
        *,
        metadata: Metadata = (),
        deadline: float | None = None,
    ) -> AsyncIterator[bytes]:
        """Makes one streaming call; closing the iterator (`aclose`) cancels it upstream."""
        ...

    async def close(self) -> None:
        """Closes the connection; calls in flight are cancelled."""
        ...


class Connector(Protocol):
    """Opens upstreams. `connect` does no I/O: the first call does."""

    def connect(self, address: str) -> Upstream:
        """An upstream for a `host:port` address."""
        ...
