"""The bookstore behind both transcoders: one real gRPC server, a real Envoy and ours in front of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


BOOKSTORE = Path(__file__).parents[2] / "testdata/bookstore/harness.py"


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def envoy_module() -> ModuleType:
    """envoy.py beside this file."""
    return _load("rest_envoy", HERE / "envoy.py")


@pytest.fixture(scope="session")
def envoy_cases() -> ModuleType:
    """cases.py beside this file."""
    return _load("rest_envoy_cases", HERE / "cases.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each row of the table."""
    if "envoy_case" in metafunc.fixturenames:
        cases = _load("rest_envoy_cases", HERE / "cases.py").CASES
        metafunc.parametrize("envoy_case", cases, ids=[case.id for case in cases])


@pytest.fixture(scope="session")
def bookstore_harness() -> ModuleType:
    """tests/testdata/bookstore/harness.py."""
    return _load("bookstore_harness", BOOKSTORE)
