"""The load and contract tools do what tests rely on: they reach real servers and count what they did."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from deploy.tools import catalogue, contracts
from tests.real.servers.envoy import Envoy, envoy
from tests.real.servers.process import free_port, program, run

CHECK = "grpc.health.v1.Health/Check"


@pytest.fixture
async def grpc_address() -> AsyncIterator[str]:
    """A gRPC server with health and reflection."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    await servicer.set("digits", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(("grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[Envoy, str]]:
    """Envoy that answers every request itself, and its address."""
    port = free_port()
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    connection = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [connection]}],
    }
    with envoy(tmp_path / "envoy", {"listeners": [listener]}) as started:
        yield started, f"http://127.0.0.1:{port}/"


async def test_grpcurl_calls_a_service_that_it_knows_from_reflection_alone(grpc_address: str) -> None:
    grpcurl = [program("grpcurl"), "-plaintext"]
    data = '{"service": "digits"}'
    answer = await asyncio.to_thread(run, [*grpcurl, "-d", data, grpc_address, CHECK])
    assert json.loads(answer) == {"status": "SERVING"}


async def test_ghz_makes_the_calls_it_was_told_to(grpc_address: str, tmp_path: Path) -> None:
    # By descriptors: ghz asks reflection for the symbol of a method, which a Python server does not find.
    descriptors = descriptor_pb2.FileDescriptorSet()
    health_pb2.DESCRIPTOR.CopyToProto(descriptors.file.add())
    protoset = tmp_path / "health.binpb"
    protoset.write_bytes(descriptors.SerializeToString())
    options = ["--insecure", "--protoset", str(protoset), "--call", CHECK, "--format", "json"]
    count = ["--total", "200", "--concurrency", "4"]
    report = json.loads(await asyncio.to_thread(run, [program("ghz"), *options, *count, grpc_address]))
    assert report["count"] == 200
    assert report["statusCodeDistribution"] == {"OK": 200}


def test_envoy_counts_what_h2load_and_wrk_send_over_http_2_and_1(proxy: tuple[Envoy, str]) -> None:
    server, url = proxy
    told = run([program("load", "h2load"), "-n", "500", "-c", "2", "-m", "10", url])
    assert "500 succeeded, 0 failed" in told
    assert server.counter("http.ingress.downstream_rq_http2_total") == 500
    told = run([program("load", "wrk"), "-t", "1", "-c", "2", "-d", "1s", url])
    requests = re.search(r"(\d+) requests in", told)
    assert requests, told
    # wrk leaves out the answers that were on their way when its second ended.
    assert 0 <= server.counter("http.ingress.downstream_rq_http1_total") - int(requests[1]) <= 4
    assert "Non-2xx" not in told


def test_our_contracts_are_as_google_asks() -> None:
    assert contracts.lint(catalogue.program("api-linter"), contracts.PROTOS, contracts.RULES) == []


def test_the_linter_of_contracts_finds_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "penstock/test/v1").mkdir(parents=True)
    (tmp_path / "third_party").mkdir()
    (tmp_path / "penstock/test/v1/thing.proto").write_text(
        'syntax = "proto3";\npackage penstock.test.v1;\nmessage Thing {\n  uint64 itemCount = 1;\n}\n'
    )
    found = contracts.lint(catalogue.program("api-linter"), tmp_path, contracts.RULES)
    assert any(
        line.startswith("protos/penstock/test/v1/thing.proto:4: core::0140::lower-snake") for line in found
    )
