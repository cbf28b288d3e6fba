"""TLS, mutual TLS and bearer tokens on both faces."""

import asyncio
import shutil
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
from chassis import errors
from chassis.channel import open_channel
from chassis.settings import AuthSettings, ChannelSettings, ListenSettings, ServiceSettings, TlsSettings
from chassis.testing import running
from chassis.transport.grpcio import GrpcConnector
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc
from pydantic import SecretStr

UNARY = "/test.v1.Echo/Unary"
NAME = "projects/p/models/m/endpoints/e"


@pytest.fixture
def tls(certificates) -> TlsSettings:
    return TlsSettings(cert_file=certificates.server_cert, key_file=certificates.server_key)


@pytest.fixture
def mutual(certificates, tls: TlsSettings) -> TlsSettings:
    return tls.model_copy(update={"client_ca_file": certificates.ca})


def channel_settings(address: str, certificates, who: str | None = None) -> ChannelSettings:
    return ChannelSettings(
        address=address,
        ca_file=certificates.ca,
        cert_file=getattr(certificates, f"{who}_cert") if who else None,
        key_file=getattr(certificates, f"{who}_key") if who else None,
    )


async def who_by_rpc(settings: ChannelSettings) -> str:
    async with open_channel(settings) as channel:
        stub = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
        return (await stub.GetEndpoint(pb.GetEndpointRequest(name=NAME), timeout=10)).version


async def test_both_faces_speak_tls(echo_service, certificates, tls: TlsSettings) -> None:
    async with running(ServiceSettings(tls=tls), echo_service.build) as service:
        assert service.rest_url.startswith("https://")
        assert await who_by_rpc(channel_settings(service.grpc_address, certificates)) == "nobody"
        upstream = GrpcConnector(channel_settings("", certificates)).connect(service.grpc_address)
        assert (await upstream.unary(UNARY, b"hello")).payload == b"hello"
        await upstream.close()
        trust = ssl.create_default_context(cafile=str(certificates.ca))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as http:
            assert (await http.get(f"{service.rest_url}/readyz")).status_code == 200
        plain = GrpcConnector().connect(service.grpc_address)
        with pytest.raises(errors.Unavailable):
            await plain.unary(UNARY, b"hello")
        await plain.close()


async def test_mutual_tls_tells_who_calls_on_every_path(
    echo_service, certificates, mutual: TlsSettings
) -> None:
    async with running(ServiceSettings(tls=mutual), echo_service.build) as service:
        known = channel_settings(service.grpc_address, certificates, "client")
        assert await who_by_rpc(known) == "client"
        upstream = GrpcConnector(known).connect(service.grpc_address)
        assert (await upstream.unary(UNARY, b"who")).payload == b"client"
        await upstream.close()
        trust = ssl.create_default_context(cafile=str(certificates.ca))
        trust.load_cert_chain(certificates.client_cert, certificates.client_key)
        async with httpx.AsyncClient(verify=trust, trust_env=False) as http:
            assert (await http.get(f"{service.rest_url}/who")).json() == {"name": "client"}
            by_rest = await http.get(f"{service.rest_url}/v1/{NAME}")
            assert by_rest.json()["version"] == "client"


@pytest.mark.parametrize("who", [None, "stranger"])
async def test_mutual_tls_refuses_others(echo_service, certificates, mutual: TlsSettings, who) -> None:
    async with running(ServiceSettings(tls=mutual), echo_service.build) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await who_by_rpc(channel_settings(service.grpc_address, certificates, who))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        trust = ssl.create_default_context(cafile=str(certificates.ca))
        if who:
            trust.load_cert_chain(certificates.stranger_cert, certificates.stranger_key)
        async with httpx.AsyncClient(verify=trust, trust_env=False) as http:
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await http.get(f"{service.rest_url}/readyz")


async def test_a_renewed_certificate_is_picked_up(
    echo_service, certificates, tls: TlsSettings, tmp_path: Path
) -> None:
    async with running(ServiceSettings(tls=tls), echo_service.build) as service:
        settings = channel_settings(service.grpc_address, certificates)
        assert await who_by_rpc(settings) == "nobody"
        renewed = type(certificates)(_folder(tmp_path / "renewed"))
        for name in ("server_cert", "server_key"):
            shutil.copy(getattr(renewed, name), getattr(certificates, name))
        assert await who_by_rpc(channel_settings(service.grpc_address, renewed)) == "nobody"
        trust = ssl.create_default_context(cafile=str(renewed.ca))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as http:
            assert (await http.get(f"{service.rest_url}/readyz")).status_code == 200


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("alice:first-token\n")
    return path


async def test_tokens_are_asked_for_on_every_path(echo_service, token_file: Path, tmp_path: Path) -> None:
    settings = ServiceSettings(auth=AuthSettings(tokens_file=token_file))
    secret = tmp_path / "secret"
    secret.write_text("first-token\n")
    async with running(settings, echo_service.build) as service:
        known = ChannelSettings(address=service.grpc_address, token_file=secret)
        assert await who_by_rpc(known) == "alice"
        call = service.channel.unary_unary(UNARY)
        bearer = (("authorization", "Bearer first-token"),)
        assert await call(b"who", metadata=bearer) == b"alice"
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            for attempt in (
                call(b"who", metadata=metadata),
                service.channel.unary_unary("/penstock.aigw.v1.EndpointService/GetEndpoint")(
                    b"", metadata=metadata
                ),
                service.channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", metadata=metadata),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await attempt
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stub = health_pb2_grpc.HealthStub(service.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status  # health is exempt

        async with httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as http:
            refused = await http.get("/who")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json()["code"] == 16
            assert (await http.get(f"/v1/{NAME}")).status_code == 401
            headers = {"authorization": "Bearer first-token"}
            assert (await http.get("/who", headers=headers)).json() == {"name": "alice"}
            assert (await http.get(f"/v1/{NAME}", headers=headers)).json()["version"] == "alice"
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await http.get(path)).status_code == 200


async def test_a_stream_is_refused_without_a_token(echo_service) -> None:
    settings = ServiceSettings(auth=AuthSettings(tokens=SecretStr("a:t")))
    async with running(settings, echo_service.build) as service:
        stub = endpoint_service_pb2_grpc.EndpointServiceStub(service.channel)
        for call in (
            stub.WatchEndpoints(pb.WatchEndpointsRequest(parent="projects/-/models/-")),
            service.channel.stream_stream("/test.v1.Echo/Stream")(iter([b"a"])),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_secrets_are_never_logged(echo_service, caplog: pytest.LogCaptureFixture) -> None:
    settings = ServiceSettings(auth=AuthSettings(tokens=SecretStr("alice:s3cr3t-t0ken")))
    with caplog.at_level("DEBUG"):
        async with running(settings, echo_service.build) as service:
            call = service.channel.unary_unary(UNARY)
            await call(b"who", metadata=(("authorization", "Bearer s3cr3t-t0ken"),))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"who", metadata=(("authorization", "Bearer wr0ng-t0ken"),))
    assert "t0ken" not in caplog.text
    assert "t0ken" not in str(caught.value)


async def test_a_token_beyond_loopback_is_enough_to_listen(echo_service) -> None:
    settings = ServiceSettings(
        grpc=ListenSettings(host="0.0.0.0"),
        rest=ListenSettings(host="0.0.0.0"),
        auth=AuthSettings(tokens=SecretStr("a:t")),
    )
    async with running(settings, echo_service.build) as service:
        await asyncio.sleep(0)
        assert service.grpc_address.startswith("0.0.0.0:")
