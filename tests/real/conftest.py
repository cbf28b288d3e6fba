"""Fixtures of the real servers. Each server starts once for the whole run, when the first test asks for it.

Tests keep apart inside it, so that several can use it at once: `consul_prefix`, `kubernetes_namespace`,
`s3_bucket`, `repository`, `database_url`, `redis_prefix` belong to one test each. Where the environment names
an existing server (see `existing`), that one is used instead and nothing is started.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest
from redis import asyncio as redis_asyncio

from tests.real import existing
from tests.real.buckets import make_bucket, remove_bucket
from tests.real.servers.consul import Consul, ConsulMember, consul_cluster
from tests.real.servers.consul import consul as start_consul
from tests.real.servers.jaeger import Jaeger
from tests.real.servers.jaeger import jaeger as start_jaeger
from tests.real.servers.kubernetes import Kubernetes
from tests.real.servers.kubernetes import kubernetes as start_kubernetes
from tests.real.servers.postgresql import PostgreSQL
from tests.real.servers.postgresql import postgresql as start_postgresql
from tests.real.servers.redis import Redis
from tests.real.servers.redis import redis as start_redis
from tests.real.servers.registry import Registry
from tests.real.servers.registry import registry as start_registry
from tests.real.servers.s3 import S3
from tests.real.servers.s3 import s3 as start_s3
from tests.real.servers.session import session
from tests.real.servers.slurm import Slurm
from tests.real.servers.slurm import slurm as start_slurm


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark everything under this folder: it needs real servers."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


def unique(prefix: str) -> str:
    """Return a name that no other test uses, fit for every server here (lower case, digits, hyphens)."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def real_folder() -> Iterator[Callable[[str], Path]]:
    """Give each server a folder, open to the user it runs as; afterwards nothing of it is left."""
    with session() as root:
        yield lambda name: root / name


@pytest.fixture(scope="session")
def consul(real_folder: Callable[[str], Path]) -> Iterator[Consul]:
    """A Consul agent."""
    with existing.consul() or start_consul(real_folder("consul")) as server:
        yield server


@pytest.fixture
def consul_prefix() -> str:
    """A prefix for keys and service names of one test."""
    return unique("test")


@pytest.fixture
def consul_servers(real_folder: Callable[[str], Path]) -> Iterator[Sequence[ConsulMember]]:
    """A cluster of three Consul servers of this test's own, which it may break."""
    with consul_cluster(real_folder(unique("consul-cluster"))) as members:
        yield members


@pytest.fixture(scope="session")
def kubernetes(real_folder: Callable[[str], Path]) -> Iterator[Kubernetes]:
    """A Kubernetes cluster whose node really runs pods."""
    with existing.kubernetes() or start_kubernetes(real_folder("kubernetes")) as cluster:
        yield cluster


@pytest.fixture
def kubernetes_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """A namespace for one test, deleted with everything in it."""
    name = unique("test")
    kubernetes.kubectl("create", "namespace", name)
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def s3(real_folder: Callable[[str], Path]) -> Iterator[S3]:
    """An S3 server."""
    with existing.s3() or start_s3(real_folder("s3")) as server:
        yield server


@pytest.fixture
async def s3_bucket(s3: S3) -> AsyncIterator[str]:
    """A bucket for one test."""
    name = unique("test")
    await make_bucket(s3, name)
    yield name
    await remove_bucket(s3, name)


@pytest.fixture(scope="session")
def registry(real_folder: Callable[[str], Path]) -> Iterator[Registry]:
    """An OCI registry."""
    with existing.registry() or start_registry(real_folder("registry")) as server:
        yield server


@pytest.fixture
def repository() -> str:
    """A repository name for one test."""
    return f"penstock/{unique('test')}"


@pytest.fixture(scope="session")
def postgresql(real_folder: Callable[[str], Path]) -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    with existing.postgresql() or start_postgresql(real_folder("postgresql")) as server:
        yield server


@pytest.fixture
async def database_url(postgresql: PostgreSQL) -> AsyncIterator[str]:
    """The address of an empty database for one test."""
    name = unique("test")
    connection = await asyncpg.connect(postgresql.url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        yield postgresql.of_database(name)
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def redis(real_folder: Callable[[str], Path]) -> Iterator[Redis]:
    """A Redis server."""
    with existing.redis() or start_redis(real_folder("redis")) as server:
        yield server


@pytest.fixture
async def redis_prefix(redis: Redis) -> AsyncIterator[str]:
    """A key prefix for one test; the keys under it are deleted."""
    prefix = unique("test") + ":"
    yield prefix
    async with redis_asyncio.from_url(redis.url) as client:
        async for key in client.scan_iter(match=f"{prefix}*"):
            await client.delete(key)


@pytest.fixture(scope="session")
def slurm(real_folder: Callable[[str], Path]) -> Iterator[Slurm]:
    """A Slurm cluster of two virtual nodes."""
    with existing.slurm() or start_slurm(real_folder("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def jaeger(real_folder: Callable[[str], Path]) -> Iterator[Jaeger]:
    """A receiver of OTLP whose traces can be queried."""
    with existing.jaeger() or start_jaeger(real_folder("jaeger")) as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers were not our own."""
    named = [name for name in existing.VARIABLES if os.environ.get(name)]
    if named:
        terminalreporter.write_line(f"existing servers of the environment were used: {', '.join(named)}")
