"""Servers of the environment are used instead of ours, and only when they are named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.real import existing
from tests.real.servers.process import ServerError

Named = Callable[[], AbstractContextManager[object] | None]

ENVIRONMENT = {
    "CONSUL_HTTP_ADDR": "127.0.0.1:18500",
    "KUBECONFIG": "/tmp/kubeconfig.yaml",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:17070",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "eu-west-1",
    "REGISTRY_URL": "http://127.0.0.1:15000",
    "DATABASE_URL": "postgresql://penstock:penstock@127.0.0.1:15432/penstock",
    "PGHOST": "127.0.0.1",
    "PGPORT": "15432",
    "REDIS_URL": "redis://127.0.0.1:16379/0",
    "SLURM_CONF": "/tmp/slurm.conf",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:14317",
    "JAEGER_QUERY_URL": "http://127.0.0.1:16686",
}
SERVERS: list[Named] = [
    existing.consul,
    existing.kubernetes,
    existing.s3,
    existing.registry,
    existing.postgresql,
    existing.redis,
    existing.slurm,
    existing.jaeger,
]
by_server = pytest.mark.parametrize("named", SERVERS, ids=lambda named: named.__name__)


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)


@by_server
def test_a_server_that_is_not_named_is_ours_to_start(named: Named) -> None:
    assert named() is None


@by_server
def test_a_server_that_is_named_gives_on_the_variables_that_named_it(
    named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    found = named()
    assert found is not None
    with found as server:
        assert server.environ.items() <= ENVIRONMENT.items()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("named", "given", "missing"),
    [
        (existing.s3, "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"),
        (existing.jaeger, "OTEL_EXPORTER_OTLP_ENDPOINT", "JAEGER_QUERY_URL"),
    ],
)
def test_a_server_that_is_half_named_is_an_error_that_tells_the_other_variable(
    named: Named, given: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(given, ENVIRONMENT[given])
    with pytest.raises(
        ServerError, match=f"{missing} is not set, and the tests on {ENVIRONMENT[given]} need it"
    ):
        named()


def test_an_agent_may_be_named_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:18500")
    found = existing.consul()
    assert found is not None
    with found as server:
        assert server.address == "127.0.0.1:18500"
