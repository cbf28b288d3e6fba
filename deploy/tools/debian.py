"""Tools that are packages of Debian: installed by apt-get, their services neither started now nor at boot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.tools.cache import Cache
from deploy.tools.tool import Report, ToolError, tail

_SEARCH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/cni", "/usr/lib/postgresql/*/bin")
_POLICY = Path("/usr/sbin/policy-rc.d")
_INDEX = Path("/var/lib/apt/lists")


@dataclass(frozen=True)
class DebianTool:
    """Packages of the running release (tested on bookworm), and the programs that prove they are here."""

    name: str
    version: str
    summary: str
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    units: tuple[str, ...] = ()
    """Services that the packages would start at boot. One that was here before is let be."""

    def present(self, cache: Cache) -> bool:
        return all(find_program(command) for command in self.commands)

    def command(self, cache: Cache, name: str) -> Path:
        """Return the path of one of its programs."""
        found = find_program(name)
        if found is None:
            raise ToolError(f"{name} is not here; bring it with: make tools TOOL={self.name}")
        return found

    def install(self, cache: Cache, report: Report) -> None:
        self._check_possible()
        new_units = [unit for unit in self.units if not _known_to_systemd(unit)]
        with _no_service_starts():
            report("apt-get install " + " ".join(self.packages))
            if not self._install():
                report("apt-get update")
                _apt("update")
                if (failure := self._install_failure()) is not None:
                    raise ToolError(f"apt-get install {' '.join(self.packages)} failed:\n{tail(failure)}")
        for unit in filter(_known_to_systemd, new_units):
            subprocess.run(["systemctl", "disable", "--now", unit], capture_output=True, check=False)
        if not self.present(cache):
            missing = [command for command in self.commands if not find_program(command)]
            raise ToolError(f"{' '.join(self.packages)} brought no program called {', '.join(missing)}")

    def _check_possible(self) -> None:
        wanted = " ".join(self.packages)
        if shutil.which("apt-get") is None:
            raise ToolError(f"this machine has no apt-get; install what Debian calls: {wanted}")
        if os.geteuid() != 0:
            raise ToolError(
                f"installing needs root; run: sudo apt-get install --no-install-recommends {wanted}"
            )

    def _install(self) -> bool:
        """Install from the package index as it is; an index that is missing or too old makes this fail."""
        return any(_INDEX.glob("*Packages*")) and self._install_failure() is None

    def _install_failure(self) -> str | None:
        return _apt(
            "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600", *self.packages
        )


def find_program(name: str) -> Path | None:
    """Return a program of the system, also from folders that are not on a user's PATH."""
    for pattern in _SEARCH:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if (folder / name).is_file():
                return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def _known_to_systemd(unit: str) -> bool:
    if shutil.which("systemctl") is None:
        return False
    return subprocess.run(["systemctl", "cat", unit], capture_output=True, check=False).returncode == 0


def _apt(*arguments: str) -> str | None:
    """Run apt-get; return None when it went well, otherwise its output."""
    environment = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_MODE": "l",
        "LC_ALL": "C.UTF-8",
    }
    command = ["apt-get", "-q", "-o", "Dpkg::Options::=--force-confold", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, env=environment,
    )  # fmt: skip
    return None if done.returncode == 0 else done.stdout


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid package scripts to start services (policy-rc.d answering 101), unless set already."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
