"""Between the contract's messages and the domain's values. What this version does not execute is refused
here.
"""

from collections.abc import Iterable

from chassis import errors
from chassis.clock import Clock
from chassis.errors import Code, FieldViolation
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import code_pb2
from penstock.aigw.v1 import endpoint_service_pb2, route_pb2, traffic_service_pb2
from penstock.common.v1 import types_pb2

from aigw.app.routing import Router
from aigw.domain import names
from aigw.domain.endpoint import Endpoint, Registration
from aigw.domain.health import Replica
from aigw.domain.route import EjectionPolicy, RetryPolicy, Route, RoutePolicy, Snapshot, Target
from aigw.domain.table import ModelEntry
from aigw.domain.traffic import Answer, Counts, Point, Traffic


def read_route(project: str, route: str, message: route_pb2.Route) -> Route:
    """A declared route. Raises Unimplemented, with every field, for what this version does not execute."""
    _refuse_unexecuted(project, route, message)
    return Route(
        project=project,
        route=route,
        targets=tuple(
            Target(target.version, target.weight, dict(target.labels)) for target in message.targets
        ),
        policy=_read_policy(message.policy),
        annotations=dict(message.annotations),
    )


def _refuse_unexecuted(project: str, route: str, message: route_pb2.Route) -> None:
    """A declaration is executed whole or refused: nothing in it is silently ignored."""
    policy = message.policy
    wanted = [
        ("route.mirrors", "mirroring", bool(message.mirrors)),
        ("route.policy.hedging", "hedging", policy.HasField("hedging")),
        ("route.policy.circuit_breaker", "circuit breaking", policy.HasField("circuit_breaker")),
        ("route.policy.stickiness", "stickiness", policy.HasField("stickiness")),
        ("route.policy.limits", "limiting", bool(policy.limits)),
        (
            "route.model",
            f"serving another model than the route's own ({names.model_resource(project, route)})",
            message.model not in ("", names.model_resource(project, route)),
        ),
    ]
    violations = [
        FieldViolation(field, f"{what} is not available in this version of Penstock", "NOT_AVAILABLE")
        for field, what, present in wanted
        if present
    ]
    if violations:
        raise errors.Unimplemented(
            f"the route {names.route_name(project, route)} asks for what this version of Penstock cannot do: "
            + "; ".join(f"{violation.field}: {violation.description}" for violation in violations),
            reason="NOT_AVAILABLE",
            violations=violations,
        )


def _read_policy(message: route_pb2.RoutePolicy) -> RoutePolicy:
    retry, ejection = message.retry, message.outlier_ejection
    return RoutePolicy(
        timeout=seconds(message.timeout),
        retry=RetryPolicy(
            max_attempts=retry.max_attempts,
            codes=tuple(Code.from_number(code) for code in retry.codes),
            per_try_timeout=seconds(retry.per_try_timeout),
            budget_percent=retry.budget.percent,
            budget_min_per_second=float(retry.budget.min_per_second),
        ),
        ejection=EjectionPolicy(
            consecutive_failures=ejection.consecutive_failures,
            base_ejection=seconds(ejection.base_ejection),
            max_ejection=seconds(ejection.max_ejection),
            disabled=ejection.disabled,
        ),
        divert_unready=message.unready_targets != route_pb2.UNREADY_TARGET_POLICY_FAIL,
    )


def route_message(route: Route, entry: ModelEntry | None = None) -> route_pb2.Route:
    """A route as declared and, with its entry in the table, as observed."""
    message = route_pb2.Route(
        name=route.name,
        model=names.model_resource(route.project, route.route),
        targets=[
            route_pb2.Target(version=target.version, weight=target.weight, labels=target.labels)
            for target in route.targets
        ],
        policy=_policy_message(route.policy),
        annotations=route.annotations,
        uid=route.uid,
        etag=route.etag if route.uid else "",
        generation=route.generation,
        updater=route.updater,
    )
    if route.create_time:
        message.create_time.CopyFrom(timestamp(route.create_time))
        message.update_time.CopyFrom(timestamp(route.update_time))
    if entry is not None:
        _observe(message, entry)
    return message


def _observe(message: route_pb2.Route, entry: ModelEntry) -> None:
    message.observed_generation = entry.route.generation
    message.reconciling = entry.route.generation != message.generation
    seen = entry.observe()
    for observed in seen:
        message.observed_targets.add(
            version=observed.version,
            weight=observed.weight,
            ready_endpoints=observed.ready,
            draining_endpoints=observed.draining,
            ejected_endpoints=observed.ejected,
            share=observed.share,
        )
    unready = [observed.version for observed in seen if observed.weight and not observed.ready]
    ready = any(observed.weight and observed.ready for observed in seen)
    message.conditions.append(
        _condition(
            "Ready",
            ready,
            message,
            "TARGETS_READY" if ready else "NO_READY_ENDPOINT",
            "calls are answered" if ready else "no weighted version has a ready endpoint",
        )
    )
    message.conditions.append(
        _condition(
            "WeightsApplied",
            not unready,
            message,
            "TARGETS_WITHOUT_READY_ENDPOINT" if unready else "WEIGHTS_APPLIED",
            _unready_text(unready, diverted=ready and entry.policy.divert_unready)
            if unready
            else "the observed shares are the desired ones",
        )
    )


def _unready_text(versions: list[str], *, diverted: bool) -> str:
    what = "its share goes to the other versions" if diverted else "calls of its share fail"
    return f"no ready endpoint of version {', '.join(versions)}; {what}"


def _condition(kind: str, holds: bool, route: route_pb2.Route, reason: str, text: str) -> types_pb2.Condition:
    return types_pb2.Condition(
        type=kind,
        status=types_pb2.CONDITION_STATUS_TRUE if holds else types_pb2.CONDITION_STATUS_FALSE,
        reason=reason,
        message=text,
        observed_generation=route.observed_generation,
    )


def _policy_message(policy: RoutePolicy) -> route_pb2.RoutePolicy | None:
    """Only what was declared is told: defaults may differ between gateways."""
    if policy == RoutePolicy():
        return None
    message = route_pb2.RoutePolicy()
    if policy.timeout:
        message.timeout.CopyFrom(duration(policy.timeout))
    if not policy.divert_unready:
        message.unready_targets = route_pb2.UNREADY_TARGET_POLICY_FAIL
    retry, ejection = policy.retry, policy.ejection
    if retry != RetryPolicy():
        message.retry.max_attempts = retry.max_attempts
        message.retry.codes.extend(code_pb2.Code.Value(code.name) for code in retry.codes)
        if retry.per_try_timeout:
            message.retry.per_try_timeout.CopyFrom(duration(retry.per_try_timeout))
        if retry.budget_percent or retry.budget_min_per_second:
            message.retry.budget.percent = retry.budget_percent
            message.retry.budget.min_per_second = int(retry.budget_min_per_second)
    if ejection != EjectionPolicy():
        message.outlier_ejection.consecutive_failures = ejection.consecutive_failures
        message.outlier_ejection.disabled = ejection.disabled
        if ejection.base_ejection:
            message.outlier_ejection.base_ejection.CopyFrom(duration(ejection.base_ejection))
        if ejection.max_ejection:
            message.outlier_ejection.max_ejection.CopyFrom(duration(ejection.max_ejection))
    return message


def snapshot_message(snapshot: Snapshot) -> route_pb2.RouteSnapshot:
    """One generation of a route."""
    route = snapshot.route
    return route_pb2.RouteSnapshot(
        name=f"{route.name}/snapshots/{route.generation}",
        route=route_message(route),
        creator=snapshot.change.creator,
        reason=snapshot.change.reason,
        trace_id=snapshot.change.trace_id,
        create_time=timestamp(route.update_time),
    )


def read_endpoint(parent: str, endpoint_id: str, message: endpoint_service_pb2.Endpoint) -> Endpoint:
    """An endpoint that registers."""
    project, model = names.split_model_resource(parent)
    return Endpoint(
        project=project,
        model=model,
        endpoint=endpoint_id,
        version=message.version,
        grpc_address=message.grpc_address,
        http_address=message.http_address,
        digest=message.digest,
        labels=dict(message.labels),
    )


def endpoint_message(
    registration: Registration, router: Router, clock: Clock
) -> endpoint_service_pb2.Endpoint:
    """A registered endpoint, with its health as this gateway sees it."""
    endpoint = registration.endpoint
    replica = router.replica(endpoint.key, endpoint.endpoint)
    now, wall = clock.monotonic(), clock.time()
    message = endpoint_service_pb2.Endpoint(
        name=endpoint.name,
        version=endpoint.version,
        grpc_address=endpoint.grpc_address,
        http_address=endpoint.http_address,
        digest=endpoint.digest,
        labels=endpoint.labels,
        state=_endpoint_state(registration, replica),
        expire_time=timestamp(wall + registration.expires - now),
        register_time=timestamp(registration.register_time),
    )
    if registration.draining:
        message.drain_time.CopyFrom(timestamp(registration.drain_time))
    if replica is not None and replica.ejected:
        message.ejected_until.CopyFrom(timestamp(wall + replica.ejected_until - now))
    return message


def _endpoint_state(
    registration: Registration, replica: Replica | None
) -> endpoint_service_pb2.EndpointState.ValueType:
    if registration.draining:
        return endpoint_service_pb2.ENDPOINT_STATE_DRAINING
    if replica is not None and replica.ejected:
        return endpoint_service_pb2.ENDPOINT_STATE_EJECTED
    return endpoint_service_pb2.ENDPOINT_STATE_READY


def lease_message(registration: Registration, clock: Clock) -> endpoint_service_pb2.Lease:
    """A lease as its holder gets it."""
    return endpoint_service_pb2.Lease(
        name=registration.endpoint.name,
        lease_id=registration.lease_id,
        ttl=duration(registration.ttl),
        expire_time=timestamp(clock.time() + registration.expires - clock.monotonic()),
    )


def traffic_message(traffic: Traffic) -> traffic_service_pb2.QueryTrafficResponse:
    """Traffic of a route."""
    return traffic_service_pb2.QueryTrafficResponse(
        series=[_series_message(answer) for answer in traffic.series],
        start_time=timestamp(traffic.start),
        end_time=timestamp(traffic.end),
    )


def _series_message(answer: Answer) -> traffic_service_pb2.TrafficSeries:
    return traffic_service_pb2.TrafficSeries(
        version=answer.version, total=_statistics(answer.total), points=_points(answer.points)
    )


def _points(points: Iterable[Point]) -> list[traffic_service_pb2.TrafficPoint]:
    return [
        traffic_service_pb2.TrafficPoint(
            start_time=timestamp(point.start), statistics=_statistics(point.counts)
        )
        for point in points
    ]


def _statistics(counts: Counts) -> traffic_service_pb2.TrafficStatistics:
    return traffic_service_pb2.TrafficStatistics(
        requests=counts.requests,
        errors=counts.errors,
        codes=[
            traffic_service_pb2.CodeCount(code=code_pb2.Code.Value(code.name), count=count)
            for code, count in sorted(counts.codes.items(), key=lambda item: item[0].value)
        ],
        latency=traffic_service_pb2.LatencyStatistics(
            mean=duration(counts.mean),
            p50=duration(counts.quantile(0.5)),
            p90=duration(counts.quantile(0.9)),
            p95=duration(counts.quantile(0.95)),
            p99=duration(counts.quantile(0.99)),
            max=duration(counts.latency_max),
        ),
        retries=counts.retries,
        request_bytes=counts.request_bytes,
        response_bytes=counts.response_bytes,
    )


def seconds(message: duration_pb2.Duration) -> float:
    """A duration in seconds; 0 if not set."""
    return message.seconds + message.nanos / 1e9


def duration(value: float) -> duration_pb2.Duration:
    """Seconds as a duration."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(value * 1e9))
    return message


def timestamp(value: float) -> timestamp_pb2.Timestamp:
    """Seconds since the epoch as a timestamp, to the microsecond that a float can hold."""
    message = timestamp_pb2.Timestamp()
    message.FromMicroseconds(round(value * 1e6))
    return message
