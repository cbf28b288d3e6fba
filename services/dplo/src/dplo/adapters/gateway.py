"""Gateway and EndpointObserver on AIGW's services."""

from collections.abc import Mapping
from typing import Any

from chassis import errors
from google.protobuf import empty_pb2, field_mask_pb2, timestamp_pb2
from penstock.aigw.v1 import (
    endpoint_service_pb2,
    route_pb2,
    route_service_pb2,
    traffic_service_pb2,
)

from dplo.adapters.rpc import Remote
from dplo.domain.gate import TrafficSample
from dplo.domain.names import ModelName
from dplo.domain.observed import RouteView

OWNER = "dplo.penstock.dev/deployment"
_ROUTES = "penstock.aigw.v1.RouteService"
_ENDPOINTS = "penstock.aigw.v1.EndpointService"
_TRAFFIC = "penstock.aigw.v1.TrafficService"
_CALLED = (endpoint_service_pb2.ENDPOINT_STATE_READY, endpoint_service_pb2.ENDPOINT_STATE_EJECTED)


class AigwGateway:
    """Routes, what was measured on them, and who is registered."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        # A gateway may tell a policy in other bytes than it was given.
        # By route: what it tells, and what it was given.
        self._told: dict[str, tuple[bytes, bytes]] = {}

    async def read_route(self, model: ModelName) -> RouteView | None:
        """See Gateway."""
        request = route_service_pb2.GetRouteRequest(name=model.route)
        try:
            route = await self._remote.unary(f"{_ROUTES}/GetRoute", request, route_pb2.Route)
        except errors.NotFound:
            return None
        return RouteView(
            weights=tuple((target.version, target.weight) for target in route.targets),
            etag=route.etag,
            policy=self._meant(route),
            owner=route.annotations.get(OWNER, ""),
        )

    async def put_route(self, model: ModelName, route: RouteView, reason: str) -> None:
        """See Gateway."""
        message = route_pb2.Route(
            model=str(model),
            targets=[route_pb2.Target(version=version, weight=weight) for version, weight in route.weights],
            policy=route_pb2.RoutePolicy.FromString(route.policy) if route.policy else None,
            annotations={OWNER: route.owner},
            etag=route.etag,
        )
        if not route.etag:
            create = route_service_pb2.CreateRouteRequest(
                parent=f"projects/{model.project}", route_id=model.model, route=message, reason=reason
            )
            written = await self._remote.unary(f"{_ROUTES}/CreateRoute", create, route_pb2.Route)
            self._told[model.route] = (_policy(written), route.policy)
            return
        message.name = model.route
        update = route_service_pb2.UpdateRouteRequest(
            route=message,
            update_mask=field_mask_pb2.FieldMask(paths=["targets", "policy", "annotations"]),
            reason=reason,
        )
        written = await self._remote.unary(f"{_ROUTES}/UpdateRoute", update, route_pb2.Route)
        self._told[model.route] = (_policy(written), route.policy)

    def _meant(self, route: route_pb2.Route) -> bytes:
        """The policy as declared, if the gateway tells what it told when it was given that one."""
        told = _policy(route)
        answer, meant = self._told.get(route.name, (b"", told))
        return meant if told == answer else told

    async def delete_route(self, model: ModelName, etag: str) -> None:
        """See Gateway."""
        request = route_service_pb2.DeleteRouteRequest(name=model.route, etag=etag, allow_missing=True)
        await self._remote.unary(f"{_ROUTES}/DeleteRoute", request, empty_pb2.Empty)

    async def sample(self, model: ModelName, since: float) -> Mapping[str, TrafficSample]:
        """See Gateway."""
        start = timestamp_pb2.Timestamp()
        start.FromNanoseconds(int(since * 1e9))
        request = traffic_service_pb2.QueryTrafficRequest(route=model.route, start_time=start)
        answer = await self._remote.unary(
            f"{_TRAFFIC}/QueryTraffic", request, traffic_service_pb2.QueryTrafficResponse
        )
        return {series.version: _sample(series.total) for series in answer.series if series.version}

    async def registered(self, model: ModelName) -> frozenset[str]:
        """See EndpointObserver."""
        found: set[str] = set()
        token = ""
        while True:
            request = endpoint_service_pb2.ListEndpointsRequest(parent=str(model), page_token=token)
            answer = await self._remote.unary(
                f"{_ENDPOINTS}/ListEndpoints", request, endpoint_service_pb2.ListEndpointsResponse
            )
            found |= {e.name.rpartition("/")[2] for e in answer.endpoints if e.state in _CALLED}
            token = answer.next_page_token
            if not token:
                return frozenset(found)


def _policy(route: route_pb2.Route) -> bytes:
    return route.policy.SerializeToString(deterministic=True)


def _sample(total: Any) -> TrafficSample:
    latency = total.latency
    percentiles = ((50.0, latency.p50), (90.0, latency.p90), (95.0, latency.p95), (99.0, latency.p99))
    return TrafficSample(
        requests=total.requests,
        errors=total.errors,
        percentiles=tuple((p, duration.ToNanoseconds() / 1e9) for p, duration in percentiles),
    )
