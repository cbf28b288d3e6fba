"""Servers that somebody runs already: what the environment names is used, neither started nor stopped.

The variables are those that each system's own clients read, so that one `export` points both there. The
compose file in deploy/compose brings up servers that fit them.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.real.servers.consul import Consul
from tests.real.servers.jaeger import Jaeger
from tests.real.servers.kubernetes import Kubernetes
from tests.real.servers.postgresql import PostgreSQL
from tests.real.servers.process import ServerError
from tests.real.servers.redis import Redis
from tests.real.servers.registry import Registry
from tests.real.servers.s3 import S3
from tests.real.servers.slurm import Slurm

VARIABLES = (
    "CONSUL_HTTP_ADDR",
    "KUBECONFIG",
    "AWS_ENDPOINT_URL",
    "REGISTRY_URL",
    "DATABASE_URL",
    "REDIS_URL",
    "SLURM_CONF",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


def consul() -> AbstractContextManager[Consul] | None:
    """Return the agent of CONSUL_HTTP_ADDR (host:port, or a URL)."""
    address = os.environ.get("CONSUL_HTTP_ADDR")
    return nullcontext(Consul(address.removeprefix("http://"))) if address else None


def kubernetes() -> AbstractContextManager[Kubernetes] | None:
    """Return the cluster of the current context of KUBECONFIG."""
    path = os.environ.get("KUBECONFIG")
    return nullcontext(Kubernetes(Path(path), external=True)) if path else None


def s3() -> AbstractContextManager[S3] | None:
    """Return the server of AWS_ENDPOINT_URL, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return None
    key, secret = _needed("AWS_ACCESS_KEY_ID", endpoint), _needed("AWS_SECRET_ACCESS_KEY", endpoint)
    return nullcontext(S3(endpoint, key, secret, os.environ.get("AWS_REGION", "us-east-1")))


def registry() -> AbstractContextManager[Registry] | None:
    """Return the registry of REGISTRY_URL (http://host:port)."""
    url = os.environ.get("REGISTRY_URL")
    return nullcontext(Registry(url.rstrip("/"))) if url else None


def postgresql() -> AbstractContextManager[PostgreSQL] | None:
    """Return the server of DATABASE_URL (postgresql://user:password@host:port/database)."""
    url = os.environ.get("DATABASE_URL")
    return nullcontext(PostgreSQL(url)) if url else None


def redis() -> AbstractContextManager[Redis] | None:
    """Return the server of REDIS_URL (redis://host:port/number)."""
    url = os.environ.get("REDIS_URL")
    return nullcontext(Redis(url)) if url else None


def slurm() -> AbstractContextManager[Slurm] | None:
    """Return the cluster of SLURM_CONF."""
    path = os.environ.get("SLURM_CONF")
    return nullcontext(Slurm(Path(path))) if path else None


def jaeger() -> AbstractContextManager[Jaeger] | None:
    """Return the receiver of OTEL_EXPORTER_OTLP_ENDPOINT (gRPC) whose traces JAEGER_QUERY_URL answers for."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return None
    return nullcontext(Jaeger(endpoint, _needed("JAEGER_QUERY_URL", endpoint).rstrip("/")))


def _needed(variable: str, server: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ServerError(f"{variable} is not set, and the tests on {server} need it")
    return value
