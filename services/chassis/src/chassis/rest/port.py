"""The port between HTTP and the service behind: payloads are serialised messages, failures are
google.rpc.Status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from google.rpc import status_pb2

from chassis.rest.headers import Metadata


class RpcFailure(Exception):
    """The service answered with an error."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(f"{status.code}: {status.message}")
        self.status = status


@dataclass(slots=True, eq=False)
class Call:
    """One RPC on its way.

    ``deadline`` is in seconds of `time.monotonic`. The backend fills ``initial`` and ``trailing`` and sets
    ``started`` when the server has sent its initial metadata (at the latest with its first message).
    """

    method: str
    metadata: Metadata
    deadline: float | None
    peer: str
    client_streaming: bool
    initial: list[tuple[str, str | bytes]] = field(default_factory=list)
    trailing: list[tuple[str, str | bytes]] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)


Payload = bytes | AsyncIterator[bytes]


class Backend(Protocol):
    """Runs calls. The payload is one message, or an iterator of them for a client-streaming method.

    Both methods raise `RpcFailure`; cancelling the task that runs them (or closing the generator) cancels the
    call.
    """

    async def unary(self, call: Call, payload: Payload) -> bytes:
        """One answer."""
        ...

    def stream(self, call: Call, payload: Payload) -> AsyncGenerator[bytes, None]:
        """Many answers."""
        ...
