"""Routes and endpoints as JSON documents, the form in which a snapshot is kept for ever."""

from typing import Any

from chassis.errors import Code

from aigw.domain.endpoint import Endpoint
from aigw.domain.route import EjectionPolicy, RetryPolicy, Route, RoutePolicy, Target


def route_document(route: Route) -> dict[str, Any]:
    """A route's desired state, with what identifies it."""
    retry, ejection = route.policy.retry, route.policy.ejection
    return {
        "project": route.project,
        "route": route.route,
        "targets": [
            {"version": target.version, "weight": target.weight, "labels": dict(target.labels)}
            for target in route.targets
        ],
        "policy": {
            "timeout": route.policy.timeout,
            "divert_unready": route.policy.divert_unready,
            "retry": {
                "max_attempts": retry.max_attempts,
                "codes": [code.name for code in retry.codes],
                "per_try_timeout": retry.per_try_timeout,
                "budget_percent": retry.budget_percent,
                "budget_min_per_second": retry.budget_min_per_second,
            },
            "ejection": {
                "consecutive_failures": ejection.consecutive_failures,
                "base_ejection": ejection.base_ejection,
                "max_ejection": ejection.max_ejection,
                "disabled": ejection.disabled,
            },
        },
        "annotations": dict(route.annotations),
        "uid": route.uid,
        "generation": route.generation,
        "create_time": route.create_time,
        "update_time": route.update_time,
        "updater": route.updater,
    }


def read_route(document: dict[str, Any]) -> Route:
    """The way back of `route_document`."""
    policy = document["policy"]
    retry = policy["retry"]
    return Route(
        project=document["project"],
        route=document["route"],
        targets=tuple(Target(**target) for target in document["targets"]),
        policy=RoutePolicy(
            timeout=policy["timeout"],
            divert_unready=policy["divert_unready"],
            retry=RetryPolicy(**{**retry, "codes": tuple(Code[name] for name in retry["codes"])}),
            ejection=EjectionPolicy(**policy["ejection"]),
        ),
        annotations=document["annotations"],
        uid=document["uid"],
        generation=document["generation"],
        create_time=document["create_time"],
        update_time=document["update_time"],
        updater=document["updater"],
    )


def endpoint_document(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as it registered."""
    return {
        "project": endpoint.project,
        "model": endpoint.model,
        "endpoint": endpoint.endpoint,
        "version": endpoint.version,
        "grpc_address": endpoint.grpc_address,
        "http_address": endpoint.http_address,
        "digest": endpoint.digest,
        "labels": dict(endpoint.labels),
    }


def read_endpoint(document: dict[str, Any]) -> Endpoint:
    """The way back of `endpoint_document`."""
    return Endpoint(**document)
