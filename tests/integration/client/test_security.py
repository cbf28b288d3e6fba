"""The client against a real gateway that wants certificates and tokens."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trustme
from aigw.bootstrap import build
from aigw.settings import AccessLogSettings, AigwSettings, StoreSettings
from chassis.settings import AuthSettings, ListenSettings, TlsSettings
from chassis.testing import RunningService, running
from penstock_client import (
    NO_RETRIES,
    Address,
    AsyncClient,
    InvalidArgument,
    NotFound,
    Settings,
    Tls,
    Unauthenticated,
    Unavailable,
)
from pydantic import SecretStr


@dataclass(frozen=True)
class Files:
    """PEM files: an authority, the gateway's and the client's certificates with their keys."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def issue(name: str, host: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(host)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key

    return Files(tmp_path / "ca.pem", issue("server", "127.0.0.1"), issue("client", "caller.test"))


@pytest.fixture(params=["token"])
async def gateway(files: Files, request: pytest.FixtureRequest) -> AsyncIterator[RunningService]:
    """With TLS; and asks for a token, or for a certificate."""
    by_token = request.param == "token"
    settings = AigwSettings(
        grpc=ListenSettings(port=0),
        rest=ListenSettings(port=0),
        store=StoreSettings(backend="memory"),
        access_log=AccessLogSettings(sink="off"),
        tls=TlsSettings(
            cert_file=files.server[0],
            key_file=files.server[1],
            client_ca_file=None if by_token else files.ca,
        ),
        auth=AuthSettings(tokens=SecretStr("someone:secret")) if by_token else AuthSettings(),
    )
    async with running(settings, build) as service:
        yield service


@pytest.fixture
def settings(gateway: RunningService, files: Files) -> Settings:
    return Settings(aigw=Address(gateway.grpc_address, gateway.rest_url), tls=Tls(True, files.ca), timeout=5)


async def test_a_token_opens_both_faces(settings: Settings) -> None:
    async with AsyncClient(replace(settings, token="secret")) as client:
        assert await client.routes.list() == []
        for face in ("grpc", "rest"):
            with pytest.raises(NotFound, match="digits/classifier"):
                await client.predict("digits/classifier", {"x": np.zeros(1)}, face=face)


@pytest.mark.parametrize("gateway", ["certificate"], indirect=True)
async def test_a_certificate_opens_both_faces(settings: Settings, files: Files) -> None:
    mutual = replace(settings, tls=Tls(True, files.ca, *files.client))
    async with AsyncClient(mutual) as client:
        assert await client.routes.list() == []
        with pytest.raises(NotFound, match="digits/classifier"):
            await client.predict("digits/classifier", {"x": np.zeros(1)}, face="rest")
    async with AsyncClient(settings, retry=NO_RETRIES) as stranger:
        with pytest.raises(Unavailable):
            await stranger.routes.list()


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_nobody_else_comes_in(settings: Settings, token: str | None) -> None:
    async with AsyncClient(replace(settings, token=token)) as client:
        with pytest.raises(Unauthenticated):
            await client.routes.list()
        with pytest.raises(Unauthenticated):
            await client.predict("digits/classifier", {"x": np.zeros(1)}, face="rest")


async def test_a_server_that_cannot_prove_itself_is_not_spoken_to(settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with AsyncClient(
        replace(settings, tls=Tls(True, other), token="secret"), retry=NO_RETRIES
    ) as client:
        with pytest.raises(Unavailable):
            await client.routes.list()
        with pytest.raises(Unavailable, match="certificate"):
            await client.predict("digits/classifier", {"x": np.zeros(1)}, face="rest")


async def test_tls_files_that_are_not_there_are_named(settings: Settings, tmp_path: Path) -> None:
    async with AsyncClient(replace(settings, tls=Tls(True, tmp_path / "none.pem"))) as client:
        with pytest.raises(InvalidArgument, match=r"none\.pem"):
            await client.routes.list()
