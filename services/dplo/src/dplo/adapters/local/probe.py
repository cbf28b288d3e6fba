"""Asks a model server whether it is ready, over HTTP, without a client library."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

READY_PATH = "/v2/health/ready"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a replica listens, `host:port`, and the process that said so."""

    grpc: str
    rest: str
    pid: int


def read_addresses(path: Path) -> Addresses | None:
    """What the model server wrote; None until it serves."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rest = str(content.get("rest") or "").rpartition("//")[2]
        return Addresses(str(content["grpc"]), rest, int(content.get("pid", 0)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def is_ready(addresses: Addresses, timeout: float) -> bool:
    """Whether it answers that it is ready; a server without HTTP is ready when it accepts a connection."""
    address = addresses.rest or addresses.grpc
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                return not addresses.rest or await _ask(reader, writer, address)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> bool:
    request = f"GET {READY_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode("ascii"))
    await writer.drain()
    status = await reader.readline()
    return status.split()[1:2] == [b"200"]
