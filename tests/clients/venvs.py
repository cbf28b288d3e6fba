"""Other people's clients, each in a virtual environment of its own, kept in the user's cache.

They cap protobuf and numpy where we do not, so they cannot live beside us. An environment is made once for
its exact list of requirements; two runs that want it at the same time wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

TRITON = ("tritonclient[grpc,http]==2.63.0", "numpy<3")
KSERVE = ("kserve==0.15.2",)

_ROOT = Path(__file__).parents[2]


def cache() -> Path:
    """Where the environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "clients"


def client_python(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment that has exactly these requirements; made if it is not there."""
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{key}"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv("venv", "--python", sys.executable, str(folder))
            uv("pip", "install", "--python", str(folder / "bin" / "python"), *requirements)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def uv(*arguments: str) -> None:
    """Runs uv; its output is the error when it fails."""
    local = _ROOT / ".tools" / "bin" / "uv"
    command = str(local) if local.exists() else shutil.which("uv")
    assert command, "uv is needed: run `make setup`, or install uv"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"uv {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"


def run(python: Path, script: Path, *arguments: str, timeout: float = 60) -> str:
    """What a script says that runs in such an environment; its errors are the failure."""
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(python), str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{script.name} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
