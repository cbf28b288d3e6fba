"""The gateway's settings and its command."""

from pathlib import Path

import pytest
from aigw.bootstrap import default_policy
from aigw.cli import app
from aigw.domain.route import DEFAULT_POLICY
from aigw.settings import AigwSettings, RoutingSettings
from chassis import errors
from chassis.settings import load
from typer.testing import CliRunner


def test_the_defaults_are_the_documented_ports_and_policy() -> None:
    settings = AigwSettings()
    assert (settings.grpc.port, settings.rest.port) == (8500, 8501)
    assert default_policy(RoutingSettings()) == DEFAULT_POLICY


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "aigw.yaml"
    config.write_text("routing: {timeout: 5, max_attempts: 2}\nstore: {backend: memory}\n")
    settings = load(AigwSettings, config=config, environ={"AIGW_ROUTING__TIMEOUT": "7"})
    assert (settings.routing.timeout, settings.routing.max_attempts, settings.store.backend) == (
        7,
        2,
        "memory",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIGW_STORE__BACKEND", "postgresql"),
        ("AIGW_ACCESS_LOG__SINK", "syslog"),
        ("AIGW_ROUTING__MAX_ATTEMPTS", "0"),
        ("AIGW_TRAFFIC__WINDOW", "-1"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        load(AigwSettings, environ={name: value})
    assert caught.value.violations[0].field == name


def test_the_command_says_what_it_can_do() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "run" in result.output
