"""One stack for all whole-chain tests: three services as separate processes, packages of a real model.

Each test works in a project of its own, so that they do not meet.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from penstock_client import Address, Client, Settings
from penstock_client.local import processes, stack, state
from penstock_client.local.state import StackState

from deploy import digits as example
from deploy.digits import NEW, OLD, Digits


@dataclass
class Stack:
    """The running services."""

    options: stack.StackOptions
    state: StackState

    @property
    def settings(self) -> Settings:
        """Settings of a client of them."""
        found = self.state.services
        return replace(
            Settings(timeout=20),
            **{name: Address(found[name].grpc, found[name].rest) for name in ("aigw", "dplo", "mds")},
        )

    def restart(self) -> None:
        """Starts what does not run, where it ran before."""
        self.state = stack.start(self.options, lambda service, what: None)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a service a signal that ends it, and waits until it has."""
        os.kill(self.state.services[name].pid, number)
        deadline = time.monotonic() + 30
        while processes.is_running(self.state.services[name]):
            assert time.monotonic() < deadline, f"{name} did not end"
            time.sleep(0.02)

    def log(self, name: str) -> str:
        """A service's log."""
        return Path(self.state.services[name].log).read_text(errors="replace")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """The trained example with its packages built."""
    trained = example.train(tmp_path_factory.mktemp("digits"))
    for version in (OLD, NEW):
        example.build(trained, version)
    return trained


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = stack.StackOptions(
        tmp_path_factory.mktemp("stack"), first_port=0, traces="file", sample_ratio=0.0
    )
    running = stack.start(options, lambda service, what: None)
    yield Stack(options, running)
    stack.stop(options.folder, lambda service, what: None)
    assert processes.marked(running.id) == []
    assert state.read(options.folder) is None


@pytest.fixture
def client(penstock: Stack) -> Iterator[Client]:
    with Client(penstock.settings) as made:
        yield made


@pytest.fixture
def project(client: Client, digits: Digits) -> Iterator[str]:
    """A project that has both packages; what is deployed in it is taken away at the end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    for version in (OLD, NEW):
        client.packages.upload(digits.package(version), project=name)
    yield name
    client.deployments.delete(f"{name}/classifier", allow_missing=True)


@pytest.fixture
def declare(project: str) -> Callable[..., dict[str, object]]:
    """Declarations of the project's deployment."""

    def make(version: str, *, replicas: int = 1, steps: object = ()) -> dict[str, object]:
        return example.declaration(project, version, replicas=replicas, steps=steps)

    return make
