"""Consul: one development agent, or a cluster of three servers that elect a leader."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.real.servers.process import Server, free_port, program, running

_PORTS = ("http", "grpc", "serf_lan", "serf_wan", "server")


@dataclass(frozen=True)
class Consul:
    """An agent at `address` (host:port), or an existing one that CONSUL_HTTP_ADDR names."""

    address: str

    @property
    def environ(self) -> dict[str, str]:
        return {"CONSUL_HTTP_ADDR": self.address}

    def get(self, path: str) -> object:
        """Return the decoded answer to a GET of the HTTP API, for example `/v1/status/leader`."""
        with urllib.request.urlopen(
            f"http://{self.address.removeprefix('http://')}{path}", timeout=5
        ) as answer:
            return json.load(answer)


@dataclass(frozen=True)
class ConsulMember(Consul):
    """One server of a cluster, with its process for tests of outages."""

    name: str
    raft_address: str
    """How `/v1/status/leader` calls this server when it leads."""
    server: Server


@contextmanager
def consul(folder: Path) -> Iterator[Consul]:
    """Start one agent in development mode: in memory, its own leader."""
    with ExitStack() as stack:
        (member,) = _start(folder, [{"node_name": "dev"}], ["-dev"], stack)
        yield member


@contextmanager
def consul_cluster(folder: Path, size: int = 3) -> Iterator[Sequence[ConsulMember]]:
    """Start servers that find each other and elect a leader."""
    nodes = [
        {"node_name": f"server-{number}", "server": True, "bootstrap_expect": size} for number in range(size)
    ]
    with ExitStack() as stack:
        yield _start(folder, nodes, [], stack)


def _start(
    folder: Path, nodes: Sequence[dict[str, object]], flags: Sequence[str], stack: ExitStack
) -> list[ConsulMember]:
    ports = [{name: free_port() for name in _PORTS} for _ in nodes]
    members = []
    for node, own in zip(nodes, ports, strict=True):
        name = str(node["node_name"])
        config = {
            **node,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {**own, "dns": -1, "grpc_tls": -1},
            "retry_join": [f"127.0.0.1:{other['serf_lan']}" for other in ports if other is not own],
            "retry_interval": "200ms",
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
        }
        if not flags:
            config["data_dir"] = str(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config))
        command = [program("consul"), "agent", *flags, f"-config-file={path}"]
        server = stack.enter_context(running(f"consul-{name}", command, folder, patience=3))
        members.append(ConsulMember(f"127.0.0.1:{own['http']}", name, f"127.0.0.1:{own['server']}", server))
    for member in members:
        member.server.wait_until_listening(int(member.address.rpartition(":")[2]))
    for member in members:
        member.server.wait_until("part of a cluster with a leader", partial(_serves, member, len(members)))
    return members


def _serves(member: Consul, size: int) -> bool:
    """Tell whether a leader is known and every node is in its catalogue with a passing health check."""
    passing = member.get("/v1/health/state/passing")
    return bool(member.get("/v1/status/leader")) and isinstance(passing, list) and len(passing) >= size
