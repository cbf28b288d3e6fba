"""Fixtures shared by the chassis's integration tests: the echo service and certificates."""

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import trustme
from chassis.settings import ServiceSettings
from chassis.testing import RunningService, running

ECHO_SERVICE = Path(__file__).with_name("echo_service.py")


@pytest.fixture(scope="session")
def echo_service() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chassis_echo_service", ECHO_SERVICE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def echo_command() -> list[str]:
    return [sys.executable, str(ECHO_SERVICE)]


@pytest.fixture
async def echo(echo_service: ModuleType) -> AsyncIterator[RunningService]:
    async with running(ServiceSettings(), echo_service.build, name="echo") as service:
        yield service


@pytest.fixture
async def http(echo: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=echo.rest_url, trust_env=False) as client:
        yield client


class Certificates:
    """A server certificate and a client's, by one authority, and a client's by another."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.server_cert, self.server_key = self._issue(folder, "server", self.authority, "127.0.0.1")
        self.client_cert, self.client_key = self._issue(folder, "client", self.authority, "gateway.test")
        stranger = trustme.CA()
        self.stranger_cert, self.stranger_key = self._issue(folder, "stranger", stranger, "gateway.test")

    @staticmethod
    def _issue(folder: Path, name: str, authority: trustme.CA, host: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(host, common_name=name)
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)
