"""Tools that come as Python wheels, each in a folder of its own so that its pins bind nobody else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.tools.cache import Cache
from deploy.tools.tool import Report, ToolError, tail


@dataclass(frozen=True)
class WheelTool:
    """Exact requirements, installed from wheels only: nothing is compiled and no set-up script runs."""

    name: str
    version: str
    summary: str
    requirements: tuple[str, ...]
    commands: tuple[str, ...]

    def fingerprint(self) -> str:
        return " ".join(self.requirements)

    def present(self, cache: Cache) -> bool:
        return cache.has(self.name, self.version, self.fingerprint())

    def install(self, cache: Cache, report: Report) -> None:
        report("installing " + ", ".join(self.requirements))
        with cache.replacing(self.name, self.version, self.fingerprint()) as folder:
            pip = folder / "pip"
            _run([sys.executable, "-m", "venv", str(pip)])
            install = [
                str(pip / "bin/python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            install += ["--only-binary", ":all:", "--target", str(folder / "packages")]
            _run([*install, *self.requirements])
            shutil.rmtree(pip)
            missing = [command for command in self.commands if not self._shipped(folder, command)]
            if missing:
                raise ToolError(
                    f"{', '.join(self.requirements)} brought no program called {', '.join(missing)}"
                )

    def command(self, cache: Cache, name: str) -> Path:
        """Return one of the programs shipped inside the packages, in whichever `bin` folder they keep it."""
        shipped = self._shipped(cache.folder(self.name, self.version), name)
        if not shipped:
            raise ToolError(
                f"{self.name} {self.version} is not here; bring it with: make tools TOOL={self.name}"
            )
        return shipped[0]

    def _shipped(self, folder: Path, name: str) -> list[Path]:
        return sorted(
            path for kind in ("bin", "_bin") for path in folder.glob(f"packages/*/**/{kind}/{name}")
        )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"{' '.join(command)} failed:\n{tail(done.stdout)}")
