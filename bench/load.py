"""Closed-loop gRPC load by h2load (nghttp2): in C, so that it costs little beside what it measures."""

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

INSTALL = "h2load is not installed: on Debian, apt-get install nghttp2-client"
CONNECTIONS = 4


@dataclass(frozen=True)
class Load:
    """What one run did: `requests` good answers in `seconds`, with latencies in microseconds."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def grpc_frame(message: bytes) -> bytes:
    """One uncompressed length-prefixed message, as gRPC over HTTP/2 sends it."""
    return b"\0" + struct.pack(">I", len(message)) + message


def run(address: str, method: str, message: bytes, *, concurrency: int, requests: int) -> Load:
    """Sends unary calls with `concurrency` in flight; raises RuntimeError unless all get 200 and a body."""
    program = shutil.which("h2load")
    if program is None:
        raise RuntimeError(INSTALL)
    connections, streams = (1, 1) if concurrency == 1 else (CONNECTIONS, concurrency // CONNECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(grpc_frame(message))
        command = [program, "-t1", f"-n{requests}", f"-c{connections}", f"-m{streams}"]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body)]
        command += [f"--log-file={log}", f"http://{address}{method}"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    good = int(_find(r"(\d+) 2xx", output))
    data = int(_find(r"\(([\d]+)\) data", output))
    if good != requests or data < requests * 5:
        raise RuntimeError(
            f"{address}{method}: {good} of {requests} answered, {data} bytes of body\n{output}"
        )
    return Load(
        requests=good,
        seconds=_seconds(_find(r"finished in ([\d.]+\w+)", output)),
        p50_us=latencies[len(latencies) // 2],
        p99_us=latencies[int(len(latencies) * 0.99)],
    )


def _find(pattern: str, text: str) -> str:
    if match := re.search(pattern, text):
        return match[1]
    raise RuntimeError(f"h2load printed nothing like {pattern!r}:\n{text}")


def _seconds(text: str) -> float:
    for suffix, factor in (("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    raise RuntimeError(f"h2load printed a duration of unknown unit: {text!r}")
