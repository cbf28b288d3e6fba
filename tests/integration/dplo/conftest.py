"""Real neighbours for each test: a gateway, a package service, and packages of a small model."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from chassis.testing.process import ServiceProcess, service_process
from mds.packaging import build_package

from tests.integration.dplo.stack import MODEL, Neighbours, Packages, replica_pids


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("packages")
    for version in ("1", "2", "3"):
        source = folder / f"source{version}"
        source.mkdir()
        (source / "plus.py").write_text(MODEL.replace("{version}", version))
        (source / "penstock.yaml").write_text(
            f'entry: plus:Plus\nmodel: plus\nversion: "{version}"\nframework: python\ncode: [plus.py]\n'
        )
        build_package(source, folder / f"plus-{version}.mdspkg")
    return Packages(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[ServiceProcess, ServiceProcess]]:
    """The neighbours are started once; each test works in a project of its own."""
    gateway = {"AIGW_STORE__BACKEND": "memory", "AIGW_ACCESS_LOG__SINK": "off"}
    store = {"MDS_STORE__URL": str(tmp_path_factory.mktemp("store"))}
    async with (
        service_process("aigw", environ=gateway, wait=False) as aigw,
        service_process("mds", environ=store, wait=False) as mds,
    ):
        await asyncio.gather(aigw.ready(60), mds.ready(60))
        yield aigw, mds


@pytest.fixture
def neighbours(
    tmp_path: Path, packages: Packages, servers: tuple[ServiceProcess, ServiceProcess]
) -> Neighbours:
    return Neighbours(tmp_path, *servers, packages)


@pytest.fixture(autouse=True)
def no_replica_left(tmp_path: Path) -> Iterator[None]:
    """Ends the replicas of a test, which outlive the service on purpose."""
    yield
    for pid in replica_pids(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
