"""Where settings come from, which wins, and how mistakes in them are told."""

from pathlib import Path

import pytest
from penstock_client import settings
from penstock_client.errors import InvalidArgument
from penstock_client.local import state
from penstock_client.local.state import ServiceState, StackState

PROFILES = """
current_profile: staging
profiles:
  staging:
    aigw: {grpc: "gw:443", rest: "https://gw"}
    dplo: "dplo:9000"
    tls: {ca_file: ca.pem}
    token_file: token
    project: digits
    timeout: 5
  bare: {}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PENSTOCK_STATE": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def config(env: dict[str, str]) -> Path:
    path = Path(env["XDG_CONFIG_HOME"]) / "penstock" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(PROFILES)
    return path


def test_without_anything_the_default_ports_are_used(env: dict[str, str]) -> None:
    found = settings.load(environ=env)

    assert found.aigw.grpc == "127.0.0.1:8500"
    assert found.dplo.rest == "http://127.0.0.1:8511"
    assert found.source == "the default ports"


def test_the_current_profile_is_used_and_its_paths_are_relative_to_the_file(
    env: dict[str, str], config: Path
) -> None:
    found = settings.load(environ=env)

    assert found.aigw == settings.Address("gw:443", "https://gw")
    assert found.dplo == settings.Address("dplo:9000", "http://dplo:9001")
    assert found.tls == settings.Tls(True, config.parent / "ca.pem")
    assert found.token_file == config.parent / "token"
    assert (found.project, found.timeout) == ("digits", 5.0)


@pytest.mark.usefixtures("config")
def test_a_profile_given_wins_over_the_variable_and_that_over_the_file(env: dict[str, str]) -> None:
    assert settings.load(environ={**env, "PENSTOCK_PROFILE": "bare"}).project is None
    assert settings.load(environ={**env, "PENSTOCK_PROFILE": "bare"}, profile="staging").project == "digits"


@pytest.mark.usefixtures("config")
def test_the_environment_wins_over_the_profile(env: dict[str, str]) -> None:
    found = settings.load(
        environ={
            **env,
            "PENSTOCK_AIGW": "other:1",
            "PENSTOCK_AIGW_REST": "http://other:2",
            "PENSTOCK_TOKEN": "secret",
            "PENSTOCK_TLS": "off",
            "PENSTOCK_TIMEOUT": "7.5",
        }
    )

    assert found.aigw == settings.Address("other:1", "http://other:2")
    assert (found.token, found.token_file) == ("secret", None)
    assert not found.tls.enabled
    assert found.timeout == 7.5


def test_the_stack_on_this_machine_is_found(env: dict[str, str]) -> None:
    folder = state.folder(env)
    folder.mkdir()
    entry = ServiceState(1, 2.0, "127.0.0.1:9", "http://127.0.0.1:10", "log")
    state.write(StackState("id", folder, {"aigw": entry}))

    found = settings.load(environ=env)

    assert found.aigw == settings.Address("127.0.0.1:9", "http://127.0.0.1:10")
    assert "penstock up" in found.source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles: [", "cannot read"),
        ("[]", "must be a mapping"),
        ("profile: {}", "profile is unknown; allowed: current_profile, profiles"),
        ("current_profile: x\nprofiles: {y: {}}", "no profile 'x'.*there: y"),
        ("current_profile: x\nprofiles: {x: {aigw: {grcp: a}}}", r"profiles\.x\.aigw\.grcp is unknown"),
        ("current_profile: x\nprofiles: {x: {timeout: soon}}", "timeout must be a number"),
        ("current_profile: x\nprofiles: {x: {tls: {cert_file: a}}}", "both cert_file and key_file"),
        ("current_profile: x\nprofiles: {x: {token: a, token_file: b}}", "not both"),
    ],
)
def test_mistakes_in_the_file_are_told_with_their_place(
    env: dict[str, str], config: Path, text: str, message: str
) -> None:
    config.write_text(text)

    with pytest.raises(InvalidArgument, match=message):
        settings.load(environ=env)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"PENSTOCK_TIMEOUT": "-1"}, "PENSTOCK_TIMEOUT must be a number"),
        ({"PENSTOCK_TOKEN": "a", "PENSTOCK_TOKEN_FILE": "b"}, "not both"),
        ({"PENSTOCK_CONFIG": "/nowhere.yaml"}, "does not exist"),
        ({"PENSTOCK_PROFILE": "x"}, "no profile 'x'"),
    ],
)
def test_mistakes_in_the_environment_are_told_with_the_variable(
    env: dict[str, str], given: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        settings.load(environ={**env, **given})


@pytest.mark.parametrize(
    "content", ["", "{", '{"format": 2}', '{"format": 1, "id": "x", "services": {"a": {}}}']
)
def test_a_state_file_that_cannot_be_understood_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "stack.json").write_text(content)

    assert state.read(tmp_path) is None
