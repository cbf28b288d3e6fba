"""The access log: one JSON line per call, written behind the hot path.

Calls are put into a bounded buffer and written by a task in batches; when the buffer is full, lines are
dropped and counted, never waited for. Payloads, credentials and metadata are never part of a line.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from chassis.clock import Clock
from chassis.errors import Code

from aigw.app.exchange import Exchange
from aigw.app.ports import AccessSink
from aigw.domain.names import split_key
from aigw.domain.table import Face

Encoder = Callable[[Mapping[str, Any]], bytes]
_BATCH = 4096


class AccessLog:
    """A bounded buffer before a sink. `sample_ratio` is the share of successful calls that is logged;
    failed ones always are. `flush_interval` in seconds.
    """

    def __init__(
        self,
        sink: AccessSink | None,
        encode: Encoder,
        *,
        clock: Clock,
        capacity: int = 65_536,
        sample_ratio: float = 1.0,
        flush_interval: float = 0.2,
        on_failure: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._sink = sink
        self._encode = encode
        self._clock = clock
        self._capacity = capacity
        self._ratio = sample_ratio
        self._interval = flush_interval
        self._due = 1.0
        self._buffer: deque[tuple[float, float, Exchange]] = deque()
        self._filled = asyncio.Event()
        self._told_dropped = 0
        self._failing = False
        self._on_failure = on_failure
        # One thread of its own keeps the batches in order, and the end after the last of them.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="access-log")
        self.written = 0
        self.dropped = 0

    def add(self, now: float, latency: float, exchange: Exchange) -> None:
        """Takes a call that ended at `now`; never waits, drops if the buffer is full."""
        if self._sink is None:
            return
        if exchange.code is Code.OK and self._ratio < 1.0 and not self._sampled():
            return
        if len(self._buffer) >= self._capacity:
            self.dropped += 1
            return
        exchange.metadata = ()  # what waits here shall neither hold memory nor secrets
        self._buffer.append((now, latency, exchange))
        if not self._filled.is_set():
            self._filled.set()

    async def flush_once(self) -> int:
        """Writes what is buffered; how many lines that were."""
        sink = self._sink
        if sink is None:
            return 0
        written = 0
        while self._buffer:
            batch = [self._buffer.popleft() for _ in range(min(_BATCH, len(self._buffer)))]
            # Shielded, because a batch that was taken out of the buffer is lost if it is not written.
            await asyncio.shield(self._in_thread(self._write, sink, batch))
            written += len(batch)
        return written

    async def run(self) -> None:
        """Writes as calls come in, for ever."""
        while True:
            await self._filled.wait()
            await self._clock.sleep(self._interval)
            self._filled.clear()
            await self.flush_once()

    async def close(self) -> None:
        """Writes the rest and closes the sink."""
        await self.flush_once()
        if self._sink is not None:
            await self._in_thread(self._sink.close)
        self._thread.shutdown()

    def _in_thread(self, function: Callable[..., None], *arguments: Any) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _sampled(self) -> bool:
        """Evenly spread: every n-th for a ratio of 1/n, without randomness."""
        self._due += self._ratio
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True

    def _write(self, sink: AccessSink, batch: list[tuple[float, float, Exchange]]) -> None:
        lines = [self._encode(describe(*item)) for item in batch]
        dropped = self.dropped
        if dropped > self._told_dropped:
            lines.append(
                self._encode({"time": _stamp(batch[-1][0]), "dropped": dropped - self._told_dropped})
            )
            self._told_dropped = dropped
        try:
            sink.write(b"\n".join(lines) + b"\n")
        except OSError as error:  # a full disk must not stop the gateway, nor fill its own log
            self.dropped += len(batch)
            if not self._failing:
                self._on_failure(error)
            self._failing = True
        else:
            self.written += len(batch)
            self._failing = False


def describe(now: float, latency: float, exchange: Exchange) -> dict[str, Any]:
    """One call as the log tells it; the fields of `AccessLogEntry` in the contract."""
    project, model = split_key(exchange.model)
    replica = exchange.replica
    line: dict[str, Any] = {
        "time": _stamp(now),
        "project": project,
        "model": model,
        "version": replica.version if replica is not None else "",
        "endpoint": replica.id if replica is not None else "",
        "method": exchange.method,
        "protocol": "grpc" if exchange.face is Face.GRPC else "rest",
        "code": exchange.code.name,
        "latency_ms": round(latency * 1000, 3),
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "attempts": exchange.attempts,
        "trace_id": exchange.trace_id,
        "identity": exchange.identity,
    }
    if exchange.version:
        line["asked_version"] = exchange.version
    if exchange.reason:
        line["reason"] = exchange.reason
    return line


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
