"""Settings: sources and their order, and errors that name the place."""

from pathlib import Path

import pytest
from chassis import errors
from chassis.settings import AuthSettings, ListenSettings, ServiceSettings, TlsSettings, load
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class GatewaySettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="AIGW_")

    grpc: ListenSettings = ListenSettings(port=8500)
    labels: dict[str, str] = Field(default_factory=dict)


def violations_of(error: errors.Error) -> dict[str, str]:
    return {v.field: v.description for v in error.violations}


def test_defaults_hold_when_nothing_is_given() -> None:
    settings = load(GatewaySettings, environ={})
    assert settings.grpc.address == "127.0.0.1:8500"
    assert settings.telemetry.exporter == "off"


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIGW_GRPC__PORT", "1")
    assert GatewaySettings().grpc.port == 8500


def test_later_sources_win_and_leave_the_rest(tmp_path: Path) -> None:
    config = tmp_path / "aigw.yaml"
    config.write_text("grpc: {host: 10.0.0.1, port: 1}\nlimits: {default_deadline: 5}\n")
    settings = load(
        GatewaySettings,
        config=config,
        environ={"AIGW_GRPC__PORT": "2", "AIGW_LIMITS__MAX_CONCURRENT_STREAMS": "7"},
        overrides={"grpc": {"port": 3}},
    )
    assert (settings.grpc.host, settings.grpc.port) == ("10.0.0.1", 3)
    assert (settings.limits.default_deadline, settings.limits.max_concurrent_streams) == (5.0, 7)


def test_a_service_s_own_port_survives_setting_only_the_host() -> None:
    assert load(GatewaySettings, environ={"AIGW_GRPC__HOST": "::1"}).grpc.address == "[::1]:8500"


def test_json_and_mappings_come_from_the_environment() -> None:
    settings = load(GatewaySettings, environ={"AIGW_LABELS": '{"zone": "a"}'})
    assert settings.labels == {"zone": "a"}


WRONG = [
    ({"AIGW_GRPC__PORT": "http"}, "AIGW_GRPC__PORT", "valid integer"),
    ({"AIGW_GRPC__PORT": "70000"}, "AIGW_GRPC__PORT", "65535"),
    ({"AIGW_GRPC__PROT": "1"}, "AIGW_GRPC__PROT", "not permitted"),
    ({"AIGW_GRCP__PORT": "1"}, "AIGW_GRCP__PORT", "did you mean AIGW_GRPC?"),
    ({"AIGW_TELEMETRY__EXPORTER": "jaeger"}, "AIGW_TELEMETRY__EXPORTER", "'otlp'"),
    ({"AIGW_TELEMETRY__EXPORTER": "file"}, "AIGW_TELEMETRY", "needs the setting 'file'"),
    ({"AIGW_TLS__CERT_FILE": "a.pem"}, "AIGW_TLS", "belong together"),
    ({"AIGW_INSECURE_LISTEN": "perhaps"}, "AIGW_INSECURE_LISTEN", "boolean"),
    ({"AIGW_LABELS": "{broken"}, "AIGW_*", "labels"),
]


@pytest.mark.parametrize(("environ", "field", "text"), WRONG, ids=lambda v: str(v)[:40])
def test_a_wrong_variable_is_named_with_what_is_wrong(environ: dict[str, str], field: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        load(GatewaySettings, environ=environ)
    assert text in violations_of(caught.value)[field]


@pytest.mark.parametrize(
    ("content", "field", "text"),
    [
        ("grpc: {port: -1}", "grpc.port", "(in "),
        ("gprc: {port: 1}", "gprc", "not permitted"),
        ("- a\n- b", "CONFIG", "must be a mapping"),
        ("a: [", "CONFIG", "is not YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, content: str, field: str, text: str) -> None:
    config = tmp_path / "aigw.yaml"
    config.write_text(content)
    with pytest.raises(errors.InvalidArgument) as caught:
        load(GatewaySettings, config=config, environ={})
    assert text in violations_of(caught.value)[field.replace("CONFIG", str(config))]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="cannot be read"):
        load(GatewaySettings, config=tmp_path / "none.yaml", environ={})


def test_variables_that_kubernetes_sets_for_services_are_no_mistakes() -> None:
    environ = {"AIGW_SERVICE_HOST": "10.0.0.1", "AIGW_PORT": "tcp://10.0.0.1:1", "AIGW_PORT_8500_TCP": "x"}
    assert load(GatewaySettings, environ=environ).grpc.port == 8500


def test_an_override_is_named_as_such() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        load(GatewaySettings, environ={}, overrides={"grpc": {"port": "x"}})
    assert "(command line)" in violations_of(caught.value)["grpc.port"]


def test_secrets_do_not_show() -> None:
    settings = GatewaySettings(auth=AuthSettings(tokens="me:s3cret"))  # type: ignore[arg-type]  # as from outside
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert ListenSettings(host=host).is_loopback is loopback


def test_mutual_tls_needs_a_server_certificate() -> None:
    with pytest.raises(ValueError, match="needs cert_file and key_file"):
        TlsSettings(client_ca_file=Path("ca.pem"))
