"""Jaeger: takes OTLP like any collector, keeps the spans in memory and answers queries for them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.servers.process import free_port, program, running

_LISTENERS = (
    "admin.http",
    "collector.grpc-server",
    "collector.http-server",
    "collector.otlp.grpc",
    "collector.otlp.http",
    "query.grpc-server",
    "query.http-server",
)


@dataclass(frozen=True)
class Jaeger:
    """Where OTLP goes (gRPC) and where traces are asked for (HTTP).

    An existing pair is named by OTEL_EXPORTER_OTLP_ENDPOINT and JAEGER_QUERY_URL.
    """

    otlp_endpoint: str
    query_url: str

    @property
    def environ(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp_endpoint, "JAEGER_QUERY_URL": self.query_url}

    def trace(self, trace_id: str) -> list[dict[str, object]]:
        """Return the spans of a trace (hexadecimal id) as Jaeger's JSON; empty while there are none."""
        request = f"{self.query_url}/api/traces/{trace_id}"
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return found[0]["spans"] if found else []


@contextmanager
def jaeger(folder: Path) -> Iterator[Jaeger]:
    """Start a receiver without traces."""
    ports = {name: free_port() for name in _LISTENERS}
    flags = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()]
    command = [program("jaeger"), *flags, "--memory.max-traces=10000"]
    found = Jaeger(
        f"http://127.0.0.1:{ports['collector.otlp.grpc']}", f"http://127.0.0.1:{ports['query.http-server']}"
    )
    health = f"http://127.0.0.1:{ports['admin.http']}/"
    with running("jaeger", command, folder, env={"SPAN_STORAGE_TYPE": "memory"}, patience=3) as server:
        for port in ports.values():
            server.wait_until_listening(port)
        server.wait_until("ready", lambda: urllib.request.urlopen(health, timeout=2).status == 200)
        yield found
