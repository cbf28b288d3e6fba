"""The owner of the route table: rebuilds one model's entry at each change of a route, an endpoint or its
health.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chassis import errors
from chassis.clock import Clock
from chassis.transport.port import Connector

from aigw.app.event_log import EventLog
from aigw.app.ports import HttpConnector
from aigw.app.registry import EventKind, RegistryEvent
from aigw.domain import failures
from aigw.domain.endpoint import Registration
from aigw.domain.health import Failure, Replica
from aigw.domain.names import split_key
from aigw.domain.retry import RetryBudget
from aigw.domain.route import DEFAULT_POLICY, Route, RoutePolicy, effective_policy
from aigw.domain.table import ModelEntry, RouteTable, build_entry
from aigw.domain.traffic import TrafficLog

RETIREMENT_STEP = 0.25


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A route was put or removed, or what is observed of it changed."""

    project: str
    name: str
    route: Route | None


class Router:
    """Keeps `table` true. All of it runs on the event loop and off the request path.

    `retirement` is the longest time, in seconds, that connections of a replica that left stay open for the
    calls they still carry.
    """

    def __init__(
        self,
        *,
        connector: Connector,
        http_connector: HttpConnector,
        traffic: TrafficLog,
        clock: Clock,
        epoch: str,
        defaults: RoutePolicy = DEFAULT_POLICY,
        retirement: float = 300.0,
    ) -> None:
        self.table = RouteTable()
        self.events: EventLog[RouteEvent] = EventLog(epoch=epoch)
        self._connector = connector
        self._http_connector = http_connector
        self._traffic = traffic
        self._clock = clock
        self._defaults = defaults
        self._retirement = retirement
        self._routes: dict[str, Route] = {}
        self._replicas: dict[str, dict[str, Replica]] = {}
        self._retired: list[tuple[Replica, float]] = []
        self._ejected_changed = asyncio.Event()
        self._retired_changed = asyncio.Event()

    def find(self, key: str) -> ModelEntry:
        """The entry of `project/model`, or NotFound with what would be right."""
        entry = self.table.find(key)
        if not key:
            raise failures.model_missing("model_name")
        if entry is None:
            raise failures.unknown_model(key, self.table.entries, self.registered_versions(key))
        return entry

    def registered_versions(self, key: str) -> list[str]:
        """Versions of a model that have endpoints, routed or not."""
        return sorted({replica.version for replica in self._replicas.get(key, {}).values()})

    def replica(self, key: str, endpoint: str) -> Replica | None:
        """The live replica of a registered endpoint."""
        return self._replicas.get(key, {}).get(endpoint)

    def replicas(self) -> list[Replica]:
        """All live replicas."""
        return [replica for of_model in self._replicas.values() for replica in of_model.values()]

    def route_changed(self, key: str, route: Route | None) -> None:
        """Listener of the catalog."""
        if route is None:
            self._routes.pop(key, None)
            self.table = self.table.without(key)
            project, model = split_key(key)
            self.events.append(RouteEvent(project, f"projects/{project}/routes/{model}", None))
            return
        self._routes[key] = route
        self._rebuild(key)

    def endpoint_changed(self, event: RegistryEvent) -> None:
        """Listener of the registry."""
        registration = event.registration
        endpoint = registration.endpoint
        of_model = self._replicas.setdefault(endpoint.key, {})
        current = of_model.get(endpoint.endpoint)
        if event.kind is EventKind.REMOVED:
            if current is not None and current.lease_id == registration.lease_id:
                del of_model[endpoint.endpoint]
                self._retire(current)
        elif current is not None and current.lease_id == registration.lease_id:
            current.draining = registration.draining
        else:
            of_model[endpoint.endpoint] = self._connect(registration)
            if current is not None:
                self._retire(current)
        if not of_model:
            del self._replicas[endpoint.key]
        self._rebuild(endpoint.key)

    def attempt_failed(self, entry: ModelEntry, replica: Replica, failure: Failure) -> None:
        """Notes a failed attempt, and puts the replica aside if that was one too many."""
        if replica.failed(failure, entry.policy.ejection, self._clock.monotonic()):
            self._traffic.series(entry.key, replica.version).ejections += 1
            self._ejected_changed.set()
            self._rebuild(entry.key)

    def readmit_once(self) -> float | None:
        """Lets replicas return whose ejection is over; seconds until the next one, None if none is put
        aside.
        """
        now = self._clock.monotonic()
        ejected = [replica for replica in self.replicas() if replica.ejected]
        over = [replica for replica in ejected if replica.ejected_until <= now]
        for replica in over:
            replica.readmit()
        for key in {replica.endpoint.key for replica in over}:
            self._rebuild(key)
        return min((r.ejected_until - now for r in ejected if r.ejected), default=None)

    async def run_readmission(self) -> None:
        """Lets replicas return as their ejections end, for ever."""
        while True:
            self._ejected_changed.clear()
            pause = self.readmit_once()
            if pause is None:
                await self._ejected_changed.wait()
            else:
                await self._clock.sleep(max(0.0, pause))

    async def retire_once(self) -> int:
        """Closes the connections of replicas that left and have nothing in flight; how many are still
        waited for.
        """
        now = self._clock.monotonic()
        waiting = []
        for replica, since in self._retired:
            if replica.in_flight and now - since < self._retirement:
                waiting.append((replica, since))
                continue
            await _close(replica)
        self._retired = waiting
        return len(waiting)

    async def run_retirement(self) -> None:
        """Closes connections of replicas that left, for ever."""
        while True:
            self._retired_changed.clear()
            if await self.retire_once():
                await self._clock.sleep(RETIREMENT_STEP)
            else:
                await self._retired_changed.wait()

    async def close(self) -> None:
        """Closes all connections."""
        for replica in [*self.replicas(), *(replica for replica, _ in self._retired)]:
            await _close(replica)

    async def watch(self, token: str, project: str = "") -> AsyncIterator[tuple[RouteEvent | None, str]]:
        """Routes as they are, then changes of what is declared or observed; see `EventLog.follow`."""

        def snapshot() -> list[RouteEvent]:
            routes = sorted(self._routes.values(), key=lambda route: route.name)
            return [RouteEvent(r.project, r.name, r) for r in routes if project in ("", r.project)]

        async for event, resume in self.events.follow(token, snapshot):
            if event is None or project in ("", event.project):
                yield event, resume

    def _connect(self, registration: Registration) -> Replica:
        endpoint = registration.endpoint
        grpc = self._connector.connect(endpoint.grpc_address)
        http = self._http_connector.connect(endpoint.http_address) if endpoint.http_address else None
        return Replica(endpoint, registration.lease_id, grpc, http, draining=registration.draining)

    def _retire(self, replica: Replica) -> None:
        self._retired.append((replica, self._clock.monotonic()))
        self._retired_changed.set()

    def _rebuild(self, key: str) -> None:
        route = self._routes.get(key)
        if route is None:
            return
        previous = self.table.find(key)
        policy = effective_policy(route.policy, self._defaults)
        percent, per_second = policy.retry.budget_percent, policy.retry.budget_min_per_second
        if previous is None:
            budget = RetryBudget(percent, per_second, self._clock.monotonic())
        else:
            budget = previous.budget
            budget.configure(percent, per_second)
        replicas = self._replicas.get(key, {}).values()
        self.table = self.table.with_entry(build_entry(route, policy, replicas, budget, previous))
        self.events.append(RouteEvent(route.project, route.name, route))


async def _close(replica: Replica) -> None:
    """Closes both connections; a connection that will not close is no reason to keep the others open."""
    for upstream in (replica.grpc, replica.http):
        if upstream is not None:
            try:
                await upstream.close()
            except errors.Error:
                continue
