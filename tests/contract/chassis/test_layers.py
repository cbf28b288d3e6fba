"""What import-linter cannot tell: submodules that domain and application code must not import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[3] / "services"
FORBIDDEN = (
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "chassis.status",
    "chassis.server",
    "chassis.rest",
)
PURE = sorted(
    path
    for service in ("mds", "dplo", "aigw")
    for layer in ("domain", "app")
    for path in (SERVICES / service / "src" / service / layer).rglob("*.py")
)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_is_code_to_look_at() -> None:
    assert len(PURE) > 10


@pytest.mark.parametrize("path", PURE, ids=lambda p: str(p.relative_to(SERVICES)))
def test_domain_and_application_code_import_only_what_is_pure(path: Path) -> None:
    wrong = [name for name in imports(path) if any(name == f or name.startswith(f + ".") for f in FORBIDDEN)]
    assert wrong == []
