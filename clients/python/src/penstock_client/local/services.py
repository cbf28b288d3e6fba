"""The three services as the local stack runs them: command, ports, environment."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_client.errors import FailedPrecondition
from penstock_client.local.state import ServiceState

Known = Mapping[str, ServiceState]


@dataclass(frozen=True)
class ServiceSpec:
    """One service."""

    name: str
    """Its import name and command."""
    title: str
    role: str
    """What it does, in words for a person."""
    offset: int
    """Its gRPC port relative to the first port of the stack; REST is the next one."""
    environment: Callable[[Path, Known], Mapping[str, str]]
    """Its own settings, given its state folder and the services that are already up."""

    @property
    def distribution(self) -> str:
        """What to install to have it."""
        return f"penstock-{self.name}"

    def command(self) -> list[str]:
        """How to start it: with this Python if it is installed beside us, else what the PATH has."""
        if importlib.util.find_spec(self.name) is not None:
            return [sys.executable, "-m", self.name, "run"]
        found = shutil.which(self.name)
        if found is not None:
            return [found, "run"]
        extra = "[onnx]" if self.name == "mds" else ""
        raise FailedPrecondition(
            f"{self.title}, the {self.role}, is not installed here; install it with: "
            f"pip install '{self.distribution}{extra}'",
            reason="SERVICE_NOT_INSTALLED",
        )


def _gateway(folder: Path, known: Known) -> Mapping[str, str]:
    return {
        "AIGW_STORE__PATH": str(folder / "aigw" / "aigw.db"),
        "AIGW_ACCESS_LOG__PATH": str(folder / "logs" / "access.log"),
    }


def _packages(folder: Path, known: Known) -> Mapping[str, str]:
    return {"MDS_STORE__URL": str(folder / "packages")}


def _deployments(folder: Path, known: Known) -> Mapping[str, str]:
    return {
        "DPLO_STORE__URL": f"sqlite+aiosqlite:///{folder / 'dplo.db'}",
        "DPLO_GATEWAY__ADDRESS": known["aigw"].grpc,
        "DPLO_PACKAGES__ADDRESS": known["mds"].grpc,
        "DPLO_LOCAL__STATE_DIR": str(folder / "replicas"),
    }


AIGW = ServiceSpec("aigw", "AIGW", "gateway", 0, _gateway)
MDS = ServiceSpec("mds", "MDS", "package service", 20, _packages)
DPLO = ServiceSpec("dplo", "DPLO", "deployment service", 10, _deployments)

STAGES: tuple[tuple[ServiceSpec, ...], ...] = ((AIGW, MDS), (DPLO,))
"""Started stage by stage: a later one is told the addresses of the earlier ones. Stopped the other way
round.
"""

DEFAULT_FIRST_PORT = 8500
