"""The bookstore in process, for the transcoder's unit tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chassis import rest
from hypothesis import HealthCheck, settings

# The machine that runs the tests may be busy with others: no limit on time. The same examples in every run,
# so that a red run is a change; `--hypothesis-profile=wide` looks further.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "wide", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

BOOKSTORE = Path(__file__).parents[2] / "testdata/bookstore/harness.py"


@pytest.fixture(scope="session")
def bookstore_harness() -> ModuleType:
    """tests/testdata/bookstore/harness.py."""
    if "bookstore_harness" not in sys.modules:
        spec = importlib.util.spec_from_file_location("bookstore_harness", BOOKSTORE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bookstore_harness"] = module
        spec.loader.exec_module(module)
    return sys.modules["bookstore_harness"]


@pytest.fixture(scope="session")
def bookstore_contract(bookstore_harness: ModuleType) -> Any:
    """The compiled contract."""
    return bookstore_harness.contract()


@pytest.fixture
def bookstore(bookstore_harness: ModuleType) -> Any:
    """What the servicer was asked."""
    return bookstore_harness.Bookstore()


@pytest.fixture
def rest_client(bookstore_harness: ModuleType, bookstore: Any) -> Callable[..., Any]:
    """Makes a client of the bookstore: ``rest_client(options=…, interceptors=…, servicer=…)``."""

    def make(options: rest.Options | None = None, interceptors: Any = (), servicer: Any = None) -> Any:
        backend = rest.InProcess(interceptors=interceptors)
        contract = bookstore_harness.contract()
        backend.add_servicer(contract.grpc.add_BookstoreServicer_to_server, servicer or bookstore.servicer())
        app = rest.asgi(contract.descriptors, [bookstore_harness.SERVICE], backend, options)
        return bookstore_harness.AsgiClient(app)

    return make
