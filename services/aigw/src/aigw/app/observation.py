"""The last step of every call: it is counted for its version and written into the access log."""

from chassis.clock import Clock

from aigw.app.access_log import AccessLog
from aigw.app.exchange import Exchange
from aigw.domain.traffic import TrafficLog


class Observer:
    """Counts and logs what has ended. Runs on the request path: a few microseconds, no I/O."""

    def __init__(self, traffic: TrafficLog, access_log: AccessLog, clock: Clock) -> None:
        self._traffic = traffic
        self._access_log = access_log
        self._clock = clock
        self.unrouted = traffic.series("", "")
        """Calls of models that have no route. One series for all, or callers could fill the memory with
        names.
        """

    def finish(self, exchange: Exchange) -> None:
        """Takes a call that has ended, however it did."""
        now = self._clock.time()
        latency = self._clock.monotonic() - exchange.started
        entry, replica = exchange.entry, exchange.replica
        if entry is None:
            series = self.unrouted
        else:
            series = self._traffic.series(entry.key, replica.version if replica is not None else "")
        series.record(
            now,
            exchange.code,
            latency,
            exchange.attempts,
            exchange.request_bytes,
            exchange.response_bytes,
        )
        self._access_log.add(now, latency, exchange)
