"""The compose file offers what the tests can be pointed at, in the versions that deploy/tools pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy.tools import catalogue
from tests.real.existing import VARIABLES

COMPOSE = Path(__file__).parents[3] / "deploy/compose"
SERVICES = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
ENVIRONMENT = dict(
    line.split("=", 1)
    for line in (COMPOSE / "servers.env").read_text().splitlines()
    if line and not line.startswith("#")
)
PENSTOCK_PORTS = range(8500, 8532)


def published(service: str) -> set[int]:
    """Return the ports of this machine that a service is reached at."""
    return {int(mapping.split(":")[1]) for mapping in SERVICES[service]["ports"]}


def test_every_variable_that_the_tests_read_is_given() -> None:
    assert set(VARIABLES) <= set(ENVIRONMENT)


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("consul", "CONSUL_HTTP_ADDR"),
        ("s3", "AWS_ENDPOINT_URL"),
        ("registry", "REGISTRY_URL"),
        ("postgresql", "DATABASE_URL"),
        ("redis", "REDIS_URL"),
        ("jaeger", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("jaeger", "JAEGER_QUERY_URL"),
    ],
)
def test_a_variable_names_a_port_that_its_service_publishes(service: str, variable: str) -> None:
    port = re.search(r":(\d+)(/|$)", ENVIRONMENT[variable])
    assert port
    assert int(port[1]) in published(service)


def test_ports_are_published_on_loopback_only_once_each_and_leave_penstocks_own_free() -> None:
    mappings = [mapping for service in SERVICES.values() for mapping in service["ports"]]
    assert all(mapping.startswith("127.0.0.1:") for mapping in mappings)
    ports = [port for service in SERVICES for port in published(service)]
    assert len(ports) == len(set(ports))
    assert not set(ports) & set(PENSTOCK_PORTS)


@pytest.mark.parametrize(
    ("service", "tool"),
    [
        ("consul", "consul"),
        ("kubernetes", "kubernetes"),
        ("s3", "versitygw"),
        ("registry", "registry"),
        ("postgresql", "postgresql"),
        ("redis", "redis"),
        ("jaeger", "jaeger"),
    ],
)
def test_an_image_is_of_the_version_that_the_tools_pin(service: str, tool: str) -> None:
    (pinned,) = catalogue.select([tool])
    tag = SERVICES[service]["image"].rpartition(":")[2].removeprefix("v")
    assert tag == pinned.version or tag.startswith((pinned.version + ".", pinned.version + "-"))
