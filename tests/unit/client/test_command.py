"""The command where it needs no server: how it reads its input and tells mistakes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from penstock_client import cli
from penstock_client.cli import failures, output, predict
from penstock_client.errors import FieldViolation, InvalidArgument, RolloutFailed


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for service in ("AIGW", "DPLO", "MDS"):
        monkeypatch.setenv(f"PENSTOCK_{service}", "127.0.0.1:1")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["predict", "classifier", "-i", "1"], 2, "project/model"),
        (["predict", "d/c", "-i", "[1"], 2, "write JSON"),
        (["predict", "d/c", "-i", "@none.npy"], 2, "no file none.npy"),
        (["predict", "d/c", "-i", "1", "-i", "2"], 2, "NAME=VALUE"),
        (["deploy", "apply", "none.yaml"], 2, "none.yaml"),
        (["package", "push", "none.mdspkg"], 2, "no file none.mdspkg"),
        (["package", "get", "d/c"], 2, "project/model:version"),
        (["route", "set", "d/c", "1.0.0"], 2, "VERSION=WEIGHT"),
        (["route", "get", "d/c"], 6, "penstock up"),
        (["--profile", "x", "route", "list"], 2, "no profile 'x'"),
        (["frob"], 2, "No such command"),
        (["status"], 6, "penstock up"),
        (["up", "--traces", "paper"], 2, "otlp:HOST:PORT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert call(monkeypatch, *arguments) == code

    told = capfd.readouterr()
    assert said in " ".join(told.err.split())
    assert "Traceback" not in told.err
    assert told.out == ""


def test_errors_are_json_where_json_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "route", "get", "nothing", "-o", "json") == 2

    told = json.loads(capfd.readouterr().err)["error"]
    assert (told["code"], told["reason"]) == ("INVALID_ARGUMENT", "NAME_INVALID")


def test_every_field_that_was_refused_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    error = InvalidArgument(
        "the declaration is not valid",
        reason="DECLARATION_INVALID",
        violations=[FieldViolation("versions[0].replicas", "must be at least 1")],
        origin="DPLO at x",
    )

    assert failures.show(error) == 2
    told = capfd.readouterr().err
    assert "versions[0].replicas: must be at least 1" in told
    assert "(DECLARATION_INVALID, from DPLO at x)" in told


def test_a_failed_rollout_has_an_exit_code_of_its_own() -> None:
    assert failures.exit_code(RolloutFailed("")) == 7


def test_something_unexpected_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert failures.show(ValueError("boom")) == 1
    assert "unexpected: ValueError: boom" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "parsed"),
    [
        (["[[1, 2]]"], [[1, 2]]),
        (["x=[1]", "y=2.5"], {"x": [1], "y": 2.5}),
        (['{"x": [1], "y": [2]}'], {"x": [1], "y": [2]}),
        (['["a=b"]'], ["a=b"]),
    ],
)
def test_inputs_are_json_with_or_without_names(inputs: list[str], parsed: object) -> None:
    assert predict._parse(inputs) == parsed


def test_inputs_are_read_from_files(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", x=array, y=array)
    (tmp_path / "c.json").write_text("[1, 2]")

    assert np.array_equal(predict._parse([f"@{tmp_path / 'a.npy'}"]), array)
    assert list(predict._parse([f"@{tmp_path / 'b.npz'}"])) == ["x", "y"]
    assert predict._parse([f"z=@{tmp_path / 'c.json'}"]) == {"z": [1, 2]}


def test_a_file_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)

    with pytest.raises(InvalidArgument, match="cannot read the value"):
        predict._parse([f"@{tmp_path / 'a.npy'}"])


def test_tables_that_no_person_reads_are_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "digest"], [("a", "x" * 300), ("bcd", "y")])

    assert capsys.readouterr().out.splitlines() == ["NAME  DIGEST", f"a     {'x' * 300}", "bcd   y"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5s"), (65, "1m"), (7200, "2h"), (200_000, "2d")], ids=lambda value: str(value)
)
def test_ages_have_one_unit(seconds: int, text: str) -> None:
    from datetime import UTC, datetime

    stamp = Timestamp(seconds=1_000_000)
    assert output.age(stamp, now=datetime.fromtimestamp(1_000_000 + seconds, UTC)) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_have_one_unit(count: int, text: str) -> None:
    assert output.size(count) == text
