"""A service as a child process: started on free ports, its log kept, always ended with everything it
started.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path


class ServiceProcess:
    """A running child process. `grpc_address` and `rest_url` are set once it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, addresses: Path) -> None:
        self._process = process
        self._log = log
        self._addresses = addresses
        self.grpc_address = ""
        self.rest_url = ""

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.returncode

    def log(self) -> str:
        """What it wrote to stdout and stderr so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def ready(self, timeout: float = 30.0) -> None:
        """Waits until `/readyz` says yes. Fails with the log when the process ends or time runs out."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise AssertionError(f"the service ended with {self._process.returncode}:\n{self.log()}")
            if self._addresses.exists():
                addresses = json.loads(self._addresses.read_text(encoding="utf-8"))
                self.grpc_address, self.rest_url = addresses["grpc"], addresses["rest"]
                if not self.rest_url or await asyncio.to_thread(_answers, f"{self.rest_url}/readyz"):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"the service was not ready within {timeout:g} s:\n{self.log()}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself."""
        self._process.send_signal(number)

    async def wait(self, timeout: float = 30.0) -> int:
        """Waits for the end; gives the exit code."""
        return await asyncio.wait_for(self._process.wait(), timeout)

    async def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, then waits for the drained end."""
        if self._process.returncode is None:
            self.signal(signal.SIGTERM)
        return await self.wait(timeout)


@contextlib.asynccontextmanager
async def service_process(
    module: str,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    prefix: str | None = None,
    command: Sequence[str] | None = None,
    wait: bool = True,
    timeout: float = 30.0,
) -> AsyncIterator[ServiceProcess]:
    """Runs `python -m MODULE ARGUMENTS` until the context ends; `run` when no arguments are given.

    Ports are free ones unless `environ` says otherwise. `prefix` is the settings' environment prefix, by
    default the module's name in capitals. The whole process group is killed at the end, whatever happened.
    """
    start = (prefix or module.upper()) + "_"
    with tempfile.TemporaryDirectory(prefix=f"{module}-", ignore_cleanup_errors=True) as folder:
        addresses, log = Path(folder) / "addresses.json", Path(folder) / "log.txt"
        variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(start)},
            f"{start}GRPC__PORT": "0",
            f"{start}REST__PORT": "0",
            f"{start}ADDRESSES_FILE": str(addresses),
            "PYTHONUNBUFFERED": "1",
            **(environ or {}),
        }
        line = command or [sys.executable, "-m", module, *(arguments or ("run",))]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *line, env=variables, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        child = ServiceProcess(process, log, Path(variables[f"{start}ADDRESSES_FILE"]))
        try:
            if wait:
                await child.ready(timeout)
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
