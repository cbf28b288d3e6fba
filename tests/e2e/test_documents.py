"""What README and quickstart say is true: their commands run, their code is the example's, their links lead
somewhere.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Stack

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone after `make setup`."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def run(clone: Path, penstock: Stack, command: list[str]) -> str:
    environ = {
        **os.environ,
        "PENSTOCK_STATE": str(penstock.options.folder),
        "XDG_CONFIG_HOME": str(clone),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        command, cwd=clone, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_quickstart_runs_from_top_to_bottom(clone: Path, penstock: Stack) -> None:
    text = (ROOT / "docs/quickstart.md").read_text()
    steps = re.findall(r"^```(bash|python)\n(.*?)^```", text, re.M | re.S)
    assert len(steps) > 8
    told = ""
    for language, code in steps:
        if language == "python":
            told += run(clone, penstock, [sys.executable, "-c", code])
        else:
            told += run(clone, penstock, ["bash", "-euc", f'export PATH="$PWD/.venv/bin:$PATH"\n{code}'])
    assert "1 [0]" in told, "the image of a zero is one"
    assert re.search(r"^2 +100 +10\.0%$", told, re.M), "a tenth of the calls"
    assert re.search(r"^3 +complete +rollback", told, re.M)


def test_the_readmes_commands_are_the_quickstarts() -> None:
    (shown,) = blocks("README.md", "bash")
    explained = "\n".join(blocks("docs/quickstart.md", "bash"))
    for line in re.split(r"\n| && ", shown.strip()):
        assert line in explained, line


def test_the_readmes_class_is_the_examples() -> None:
    shown = blocks("README.md", "python")[0].splitlines()
    lines = iter((ROOT / "examples/digits/digits.py").read_text().splitlines())
    for line in filter(str.strip, shown):
        assert line in lines, f"not in the example, or not in this order: {line}"


def test_the_readmes_python_and_declaration_are_the_quickstarts() -> None:
    assert yaml.safe_load(blocks("README.md", "yaml")[0]) == yaml.safe_load(
        (ROOT / "examples/digits/deployment-2.yaml").read_text()
    )
    explained = blocks("docs/quickstart.md", "python")[0]
    assert all(line.rstrip(")") in explained for line in blocks("README.md", "python")[1].splitlines())


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    for document in (ROOT / "docs").rglob("*.md"):
        if document.name != "index.md":
            assert f"]({document.relative_to(ROOT / 'docs')})" in index, document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)`", document.read_text()))
        assert named <= targets, document
