"""Envoy with a configuration of the test's own; its administration face tells what passed through."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.servers.process import free_port, program, running


@dataclass(frozen=True)
class Envoy:
    """A running proxy; `admin_url` is its administration face."""

    admin_url: str

    def counter(self, name: str) -> int:
        """Return a statistic by its full name, for example `http.ingress.downstream_rq_2xx`."""
        with urllib.request.urlopen(
            f"{self.admin_url}/stats?format=json&filter=^{name}$", timeout=5
        ) as answer:
            found = json.load(answer)["stats"]
        return int(found[0]["value"]) if found else 0


@contextmanager
def envoy(folder: Path, static_resources: Mapping[str, object]) -> Iterator[Envoy]:
    """Start a proxy with these listeners and clusters (envoy.config.bootstrap.v3, as JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    path = folder / "envoy.json"
    path.write_text(json.dumps({"admin": admin, "static_resources": static_resources}))
    command = [program("envoy"), "-c", str(path), "--disable-hot-restart", "--concurrency", "1"]
    found = Envoy(f"http://127.0.0.1:{port}")
    with running("envoy", command, folder) as server:
        server.wait_until_listening(port)
        server.wait_until(
            "live", lambda: urllib.request.urlopen(f"{found.admin_url}/ready", timeout=2).status == 200
        )
        yield found
