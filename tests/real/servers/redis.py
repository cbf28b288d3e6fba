"""Redis: Debian's server, in memory only; tests keep apart by key prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.servers.process import free_port, program, run, running


@dataclass(frozen=True)
class Redis:
    """A server at `url`, or an existing one that REDIS_URL names."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        return {"REDIS_URL": self.url}


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """Start an empty server."""
    port = free_port()
    options = [
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    cli = [program("redis", "redis-cli"), "-p", str(port)]
    with running("redis", [program("redis", "redis-server"), *options], folder) as server:
        server.wait_until_listening(port)
        server.wait_until("answering", lambda: run([*cli, "PING"]).strip() == "PONG")
        yield Redis(f"redis://127.0.0.1:{port}/0")
