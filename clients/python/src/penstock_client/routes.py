"""Routes and endpoints: which versions answer a model's callers, and which replicas are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from google.protobuf import empty_pb2
from penstock.aigw.v1 import endpoint_service_pb2, route_pb2, route_service_pb2

from penstock_client import names
from penstock_client.transport import Remote

_ROUTES = route_service_pb2.DESCRIPTOR.services_by_name["RouteService"]
_ENDPOINTS = endpoint_service_pb2.DESCRIPTOR.services_by_name["EndpointService"]


class AsyncRoutes:
    """`client.routes`: traffic of each model."""

    def __init__(self, gateway: Remote, project: str | None) -> None:
        self._gateway = gateway
        self._project = project

    async def get(self, route: str) -> route_pb2.Route:
        """One route (`project/model`), desired and observed."""
        request = route_service_pb2.GetRouteRequest(name=self._name(route))
        return await self._gateway.unary("GetRoute", request, route_pb2.Route, service=_ROUTES, safe=True)

    async def list(self, project: str = "-") -> Sequence[route_pb2.Route]:
        """All routes of a project, or of all projects."""
        found: list[route_pb2.Route] = []
        token = ""
        while True:
            page = await self._gateway.unary(
                "ListRoutes",
                route_service_pb2.ListRoutesRequest(parent=f"projects/{project}", page_token=token),
                route_service_pb2.ListRoutesResponse,
                service=_ROUTES,
                safe=True,
            )
            found += page.routes
            token = page.next_page_token
            if not token:
                return found

    async def set_weights(
        self, route: str, weights: Mapping[str, int], *, etag: str = "", prune: bool = False, reason: str = ""
    ) -> route_pb2.Route:
        """Moves traffic: the whole new set of weights by version. Versions not named get weight 0, or are
        removed from the route with `prune`. A deployment that DPLO looks after is set back by it.
        """
        request = route_service_pb2.SetWeightsRequest(
            name=self._name(route),
            weights=[route_service_pb2.VersionWeight(version=v, weight=w) for v, w in weights.items()],
            etag=etag,
            prune=prune,
            reason=reason,
        )
        return await self._gateway.unary("SetWeights", request, route_pb2.Route, service=_ROUTES)

    async def put(self, route: route_pb2.Route, *, reason: str = "") -> route_pb2.Route:
        """Creates the route or replaces its desired state as a whole."""
        request = route_service_pb2.UpdateRouteRequest(route=route, allow_missing=True, reason=reason)
        return await self._gateway.unary("UpdateRoute", request, route_pb2.Route, service=_ROUTES)

    async def delete(self, route: str, *, allow_missing: bool = False) -> None:
        """Removes a route: its callers get NOT_FOUND from then on."""
        request = route_service_pb2.DeleteRouteRequest(name=self._name(route), allow_missing=allow_missing)
        await self._gateway.unary("DeleteRoute", request, empty_pb2.Empty, service=_ROUTES)

    async def history(self, route: str) -> Sequence[route_pb2.RouteSnapshot]:
        """The desired states that the route has had, newest first."""
        page = await self._gateway.unary(
            "ListRouteSnapshots",
            route_service_pb2.ListRouteSnapshotsRequest(parent=self._name(route)),
            route_service_pb2.ListRouteSnapshotsResponse,
            service=_ROUTES,
            safe=True,
        )
        return list(page.route_snapshots)

    def watch(self, project: str = "-") -> AsyncIterator[route_service_pb2.WatchRoutesResponse]:
        """All routes as they are, then each change."""
        request = route_service_pb2.WatchRoutesRequest(parent=f"projects/{project}")
        return self._gateway.server_stream(
            "WatchRoutes", request, route_service_pb2.WatchRoutesResponse, service=_ROUTES
        )

    def _name(self, text: str) -> str:
        return names.child_name("routes", text, project=self._project)


class AsyncEndpoints:
    """`client.endpoints`: the replicas that the gateway knows."""

    def __init__(self, gateway: Remote, project: str | None) -> None:
        self._gateway = gateway
        self._project = project

    async def list(
        self, model: str | None = None, *, version: str = ""
    ) -> Sequence[endpoint_service_pb2.Endpoint]:
        """The replicas of one model (`project/model`), or of all."""
        parent = names.parse_model(model, project=self._project).resource if model else "projects/-/models/-"
        found: list[endpoint_service_pb2.Endpoint] = []
        token = ""
        while True:
            page = await self._gateway.unary(
                "ListEndpoints",
                endpoint_service_pb2.ListEndpointsRequest(parent=parent, version=version, page_token=token),
                endpoint_service_pb2.ListEndpointsResponse,
                service=_ENDPOINTS,
                safe=True,
            )
            found += page.endpoints
            token = page.next_page_token
            if not token:
                return found

    def watch(self, model: str | None = None) -> AsyncIterator[endpoint_service_pb2.WatchEndpointsResponse]:
        """All replicas as they are, then each change."""
        parent = names.parse_model(model, project=self._project).resource if model else "projects/-/models/-"
        return self._gateway.server_stream(
            "WatchEndpoints",
            endpoint_service_pb2.WatchEndpointsRequest(parent=parent),
            endpoint_service_pb2.WatchEndpointsResponse,
            service=_ENDPOINTS,
        )
