"""How tools come to be here: complete or absent, pinned in one place, and a clear word where they cannot."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.tools import __main__ as command
from deploy.tools import catalogue, go, oci
from deploy.tools.cache import Cache
from deploy.tools.debian import DebianTool
from deploy.tools.go import GoTool
from deploy.tools.pause import PauseImage
from deploy.tools.tool import Report, ToolError
from deploy.tools.wheel import WheelTool

GO_TOOLS = [tool for tool in catalogue.TOOLS if isinstance(tool, GoTool)]


class FileTool:
    """A tool that is one file; it fails as often as it is told to."""

    def __init__(self, name: str, failures: int = 0) -> None:
        self.name, self.version, self.summary = name, "1", "a file"
        self.failures = failures
        self.installed = 0

    def present(self, cache: Cache) -> bool:
        return cache.has(self.name, self.version, "same")

    def install(self, cache: Cache, report: Report) -> None:
        with cache.replacing(self.name, self.version, "same") as folder:
            (folder / "program").write_text("x")
            if self.failures:
                self.failures -= 1
                raise ToolError("the network is gone")
            self.installed += 1

    def command(self, cache: Cache, name: str) -> Path:
        return cache.folder(self.name, self.version) / name


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_cache_is_shared_by_all_clones_of_a_user() -> None:
    assert Cache.of_user({"XDG_CACHE_HOME": "/x"}).root == Path("/x/penstock/tools")
    assert Cache.of_user({}).root == Path.home() / ".cache/penstock/tools"


def interrupted(cache: Cache) -> None:
    with cache.replacing("consul", "1", "new") as folder:
        (folder / "program").write_text("half")
        raise KeyboardInterrupt


def test_a_version_that_was_interrupted_is_absent_and_the_one_before_it_stays(cache: Cache) -> None:
    with cache.replacing("consul", "1", "old") as folder:
        (folder / "program").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(cache)
    assert cache.has("consul", "1", "old")
    assert not cache.has("consul", "1", "new")
    assert (cache.folder("consul", "1") / "program").read_text() == "old"


def test_a_version_made_from_other_inputs_is_absent(cache: Cache) -> None:
    with cache.replacing("consul", "1", "go.sum of last week"):
        pass
    assert not cache.has("consul", "1", "go.sum of today")


def test_what_is_present_is_left_alone_and_a_failure_does_not_stop_the_others(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = [FileTool("first"), FileTool("second", failures=1), FileTool("third")]
    assert command.bring(tools, cache) == ["second: the network is gone"]
    assert command.bring(tools, cache) == []
    assert [tool.installed for tool in tools] == [1, 1, 1]
    lines = [re.sub(r" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "[ 2/3] second 1 FAILED"
    assert lines[3] == "[ 1/3] first 1 present a file"
    assert lines[4].startswith("[ 2/3] second 1 installed in")


def test_an_unknown_tool_is_refused_with_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["konsul"]) == 2
    assert "no tool called konsul; there are: postgresql, redis" in capsys.readouterr().err


def test_a_program_that_was_not_brought_is_told_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ToolError, match="make tools TOOL=consul"):
        catalogue.program("consul")


@pytest.mark.parametrize("tool", GO_TOOLS, ids=lambda tool: tool.name)
def test_the_catalogue_and_the_module_pin_the_same_version(tool: GoTool) -> None:
    pins = (tool.module / "go.mod").read_text()
    for package in tool.commands.values():
        versions = [
            version
            for module, version in re.findall(r"^\s*(?:require )?(\S+) (v\S+)(?: // indirect)?$", pins, re.M)
            if package == module or package.startswith(module + "/")
        ]
        assert f"v{tool.version}" in versions, f"{package} is pinned to {versions}"
    assert (tool.module / "go.sum").stat().st_size > 0


def test_what_decides_a_build_is_in_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go, "MODULES", tmp_path)
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/go.sum").write_text("one")
    tool = GoTool("tool", "1", "", {"tool": "."})
    before = tool.fingerprint()
    (tmp_path / "tool/go.sum").write_text("two")
    assert tool.fingerprint() != before
    assert GoTool("tool", "1", "", {"tool": "."}, {"version": "1"}).fingerprint() != tool.fingerprint()


def shipped_go(folder: Path, version: str) -> Path:
    """Make a `go` that only tells its version."""
    folder.mkdir(parents=True)
    (folder / "go").write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
    (folder / "go").chmod(0o755)
    return folder / "go"


@pytest.fixture
def reports() -> Callable[[str], None]:
    def report(step: str) -> None:
        raise AssertionError(f"nothing needs doing, and this was done: {step}")

    return report


def test_the_machines_own_go_is_used_when_it_is_new_enough(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: Report
) -> None:
    own = shipped_go(tmp_path / "bin", "1.26.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert go.find_go(cache, reports) == own


def test_where_the_machines_go_is_too_old_the_pinned_one_is_used(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: Report
) -> None:
    shipped_go(tmp_path / "bin", "1.19.8")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with cache.replacing("go", go.TOOLCHAIN.version, go.TOOLCHAIN.fingerprint()) as folder:
        shipped_go(folder / "packages/go/bin", go.TOOLCHAIN.version)
    assert go.find_go(cache, reports) == cache.folder("go", go.TOOLCHAIN.version) / "packages/go/bin/go"


def test_a_machine_without_apt_is_told_what_to_install(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    tool = DebianTool("absent", "1", "", ("absent-server",), ("absent-program",))
    assert not tool.present(cache)
    with pytest.raises(ToolError, match="no apt-get; install what Debian calls: absent-server"):
        tool.install(cache, lambda step: None)


def test_every_tool_says_what_it_is_and_is_pinned() -> None:
    for tool in catalogue.TOOLS:
        assert tool.summary
        assert tool.version
        if isinstance(tool, WheelTool):
            assert all("==" in requirement for requirement in tool.requirements)
    assert len({tool.name for tool in catalogue.TOOLS}) == len(catalogue.TOOLS)
    assert any(isinstance(tool, PauseImage) for tool in catalogue.TOOLS)


def test_an_image_is_the_same_bytes_each_time_and_its_archive_holds_every_blob_it_names() -> None:
    files = {"bin/serve": b"#!/bin/sh\n", "etc/deep/er/model": b"1"}
    made = oci.image(files, ["/bin/serve"])
    assert made == oci.image(dict(reversed(files.items())), ["/bin/serve"])
    with tarfile.open(fileobj=io.BytesIO(made.archive("penstock.test/image:7"))) as archive:
        names = set(archive.getnames())
        index = json.loads(read(archive, "index.json"))
        (entry,) = index["manifests"]
        assert entry["annotations"]["org.opencontainers.image.ref.name"] == "7"
        manifest = json.loads(read(archive, path_of(entry["digest"])))
    assert {path_of(manifest["config"]["digest"]), path_of(manifest["layers"][0]["digest"])} <= names


def path_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()
