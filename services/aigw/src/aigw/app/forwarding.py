"""The policy of every call, written once for both faces: pick, attempt, and on failure try again what is
safe.

The happy path is `unary` alone; everything that has to do with failure happens after it has left by an
exception.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from chassis import errors
from chassis.clock import Clock
from chassis.errors import Code
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from aigw.app.exchange import Exchange
from aigw.app.observation import Observer
from aigw.app.routing import Router
from aigw.domain import failures
from aigw.domain.health import Failure, Replica, answered, classify
from aigw.domain.table import FaceTable, ModelEntry, Ring
from aigw.domain.traffic import TrafficLog


class Answer(Protocol):
    """What an attempt gives: `chassis.transport.port.Reply`, or an HTTP answer."""

    payload: bytes


T = TypeVar("T", bound=Answer)
Send = Callable[[Replica, float], Awaitable[T]]
"""Makes one attempt at a replica, until a deadline; raises `chassis.errors.Error`."""

_FACE_NAMES = ("gRPC", "REST")


class Forwarder:
    """Sends calls to replicas by the route table and the route's policy."""

    def __init__(
        self,
        router: Router,
        observer: Observer,
        traffic: TrafficLog,
        *,
        clock: Clock,
        tracer: Tracer,
        tracing: bool,
    ) -> None:
        self._router = router
        self._observer = observer
        self._traffic = traffic
        self._clock = clock
        self._monotonic = clock.monotonic
        self._tracer = tracer
        self._tracing = tracing

    async def unary(self, exchange: Exchange, send: Send[T]) -> T:
        """One answer for one request, and the exchange finished. Raises what the caller is to be told."""
        try:
            if self._tracing:
                note_trace(exchange)
            replica, deadline = self.begin(exchange)
            replica.in_flight += 1
            try:
                answer = await self.attempt(exchange, replica, send, deadline)
            except errors.Error as error:
                failed = error
            else:
                if replica.failures:
                    replica.succeeded()
                exchange.response_bytes = len(answer.payload)
                return answer
            finally:
                replica.in_flight -= 1
            return await self._recover(exchange, replica, send, deadline, failed)
        except errors.Error as error:
            exchange.code = error.code
            exchange.reason = error.reason
            raise
        except asyncio.CancelledError:
            exchange.code = Code.CANCELLED
            raise
        except BaseException:
            exchange.code = Code.INTERNAL
            raise
        finally:
            self._observer.finish(exchange)

    def refuse(self, exchange: Exchange, error: errors.Error) -> None:
        """Finishes a call that a face refuses before it could be routed."""
        exchange.code = error.code
        exchange.reason = error.reason
        self._observer.finish(exchange)

    def begin(self, exchange: Exchange) -> tuple[Replica, float]:
        """The first replica and the deadline of the whole call."""
        entry = self._router.table.find(exchange.model)
        if entry is None:
            entry = self._router.find(exchange.model)  # raises what is to be said
        exchange.entry = entry
        now = self._monotonic()
        deadline = now + entry.policy.timeout
        asked = exchange.deadline
        if asked is not None and asked < deadline:
            if asked <= now:
                raise failures.deadline_expired()
            deadline = asked
        face = entry.faces[exchange.face]
        ring: Ring | None
        if exchange.version:
            ring = entry.ring(exchange.face, exchange.version)
        elif exchange.probe:
            ring = face.pick_probe()
        else:
            ring = face.pick()
        replica = ring.next() if ring is not None else None
        if replica is None:
            raise self._nothing_ready(exchange, entry, ring)
        entry.budget.calls += 1
        exchange.replica = replica
        exchange.attempts = 1
        return replica, deadline

    def attempt(self, exchange: Exchange, replica: Replica, send: Send[T], deadline: float) -> Awaitable[T]:
        """One attempt, within the route's time per attempt, in a span of its own if the call is traced."""
        assert exchange.entry is not None
        per_try = exchange.entry.policy.retry.per_try_timeout
        if per_try:
            deadline = min(deadline, self._monotonic() + per_try)
        if self._tracing and trace.get_current_span().is_recording():
            return self._traced(exchange, replica, send, deadline)
        return send(replica, deadline)

    async def _traced(self, exchange: Exchange, replica: Replica, send: Send[T], deadline: float) -> T:
        attributes: dict[str, str | int] = {
            "penstock.model": exchange.model,
            "penstock.version": replica.version,
            "penstock.endpoint": replica.id,
            "penstock.attempt": exchange.attempts,
            "penstock.version.asked": exchange.version,
        }
        with self._tracer.start_as_current_span(
            "route",
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await send(replica, deadline)
            except errors.Error as error:
                span.set_attribute("error.type", error.code.name)
                span.set_status(StatusCode.ERROR, error.message)
                raise

    async def _recover(
        self, exchange: Exchange, replica: Replica, send: Send[T], deadline: float, error: errors.Error
    ) -> T:
        """Tries again elsewhere for as long as that is safe and allowed; else raises what the caller is
        told.
        """
        tried = [replica]
        while True:
            following = self.next_replica(exchange, replica, tried, deadline, error)
            replica = following
            tried.append(replica)
            replica.in_flight += 1
            try:
                answer = await self.attempt(exchange, replica, send, deadline)
            except errors.Error as again:
                error = again
            else:
                replica.succeeded()
                exchange.response_bytes = len(answer.payload)
                return answer
            finally:
                replica.in_flight -= 1

    def next_replica(
        self, exchange: Exchange, replica: Replica, tried: list[Replica], deadline: float, error: errors.Error
    ) -> Replica:
        """Notes a failed attempt, and gives the replica for the next one; raises the final error if there
        is none.
        """
        entry = exchange.entry
        assert entry is not None
        now = self._monotonic()
        timed_out = error.code is Code.DEADLINE_EXCEEDED and not answered(error)
        over_its_try = timed_out and now < deadline
        by_policy = timed_out and (exchange.deadline is None or exchange.deadline > deadline)
        failure = Failure.FAULT if over_its_try or by_policy else classify(error)
        self._traffic.series(entry.key, replica.version).attempt_failed(error.code)
        self._router.attempt_failed(entry, replica, failure)
        code = Code.UNAVAILABLE if over_its_try or failure is Failure.UNREACHABLE else error.code
        if code in entry.retry_codes and len(tried) < entry.policy.retry.max_attempts and now < deadline:
            other = self._other(exchange, replica, tried)
            if other is not None and entry.budget.take(now):
                exchange.replica = other
                exchange.attempts += 1
                return other
        if timed_out:
            waited = now - exchange.started
            raise failures.upstream_timeout(entry.key, replica.version, replica.id, waited) from error
        if failure is Failure.UNREACHABLE:
            raise failures.unreachable(
                entry.key, replica.version, replica.id, exchange.attempts, error
            ) from error
        raise error

    def _other(self, exchange: Exchange, replica: Replica, tried: list[Replica]) -> Replica | None:
        """A replica that was not tried: of the same version, else of another weighted one if the call
        allows it.

        Looks into the table as it is now: what was swapped in meanwhile knows better.
        """
        entry = self._router.table.find(exchange.model) or exchange.entry
        assert entry is not None
        face = entry.faces[exchange.face]
        ring = face.rings.get(replica.version)
        other = ring.other(tried) if ring is not None else None
        if other is not None or exchange.version or not entry.policy.divert_unready:
            return other
        return _any_other(face, tried)

    def _nothing_ready(self, exchange: Exchange, entry: ModelEntry, ring: Ring | None) -> errors.Unavailable:
        weighted = [target.version for target in entry.route.targets if target.weight]
        version = exchange.version or (ring.version if ring is not None else "")
        return failures.no_ready_replica(entry.key, version, weighted, _FACE_NAMES[exchange.face])


def _any_other(face: FaceTable, tried: list[Replica]) -> Replica | None:
    for ring in dict.fromkeys(face.cycle):
        other = ring.other(tried)
        if other is not None:
            return other
    return None


def note_trace(exchange: Exchange) -> None:
    """Keeps the trace that the call belongs to, for the access log."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        exchange.trace_id = f"{context.trace_id:032x}"
