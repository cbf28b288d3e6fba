"""RouteService: converts, calls the catalog, converts."""

from collections.abc import AsyncIterator
from typing import Any

from chassis import errors
from chassis.auth import current_identity
from chassis.paging import make_token, read_token
from google.protobuf import empty_pb2, field_mask_pb2
from opentelemetry import trace
from penstock.aigw.v1 import route_pb2, route_service_pb2, route_service_pb2_grpc

from aigw.api import convert, paging
from aigw.app.catalog import RouteCatalog
from aigw.app.routing import RouteEvent, Router
from aigw.domain import names
from aigw.domain.route import Change, Route

_EDITABLE = ("targets", "mirrors", "policy", "annotations")
_NEWEST = 2**62


class RouteServicer(route_service_pb2_grpc.RouteServiceServicer):
    """Routes as the contract tells them."""

    def __init__(self, catalog: RouteCatalog, router: Router) -> None:
        self._catalog = catalog
        self._router = router

    async def CreateRoute(
        self, request: route_service_pb2.CreateRouteRequest, context: Any
    ) -> route_pb2.Route:
        """See the contract."""
        project = request.parent.removeprefix("projects/")
        declared = convert.read_route(project, request.route_id, request.route)
        made = await self._catalog.create(
            declared, _change(request.reason), validate_only=request.validate_only
        )
        return self._message(made)

    async def GetRoute(self, request: route_service_pb2.GetRouteRequest, context: Any) -> route_pb2.Route:
        """See the contract."""
        return self._message(self._catalog.get(*names.split_route_name(request.name)))

    async def ListRoutes(
        self, request: route_service_pb2.ListRoutesRequest, context: Any
    ) -> route_service_pb2.ListRoutesResponse:
        """See the contract."""
        routes = self._catalog.select(_project(request.parent))
        chosen, token = paging.page(routes, lambda r: r.name, request.page_size or 100, request.page_token)
        return route_service_pb2.ListRoutesResponse(
            routes=[self._message(route) for route in chosen], next_page_token=token
        )

    async def UpdateRoute(
        self, request: route_service_pb2.UpdateRouteRequest, context: Any
    ) -> route_pb2.Route:
        """See the contract."""
        project, route = names.split_route_name(request.route.name, "route.name")
        paths = list(request.update_mask.paths)
        _check_mask(paths)

        def edit(current: Route) -> Route:
            return convert.read_route(project, route, _merged(current, request.route, paths))

        missing = convert.read_route(project, route, request.route) if request.allow_missing else None
        changed = await self._catalog.update(
            project,
            route,
            edit,
            _change(request.reason),
            etag=request.route.etag,
            missing=missing,
            validate_only=request.validate_only,
        )
        return self._message(changed)

    async def DeleteRoute(
        self, request: route_service_pb2.DeleteRouteRequest, context: Any
    ) -> empty_pb2.Empty:
        """See the contract."""
        project, route = names.split_route_name(request.name)
        await self._catalog.delete(project, route, etag=request.etag, allow_missing=request.allow_missing)
        return empty_pb2.Empty()

    async def SetWeights(self, request: route_service_pb2.SetWeightsRequest, context: Any) -> route_pb2.Route:
        """See the contract."""
        project, route = names.split_route_name(request.name)
        weights: dict[str, int] = {}
        for index, item in enumerate(request.weights):
            if item.version in weights:
                text = f"version {item.version} is named twice"
                raise errors.InvalidArgument(
                    text,
                    reason="VERSION_DUPLICATE",
                    violations=[
                        errors.FieldViolation(f"weights[{index}].version", text, "VERSION_DUPLICATE")
                    ],
                )
            weights[item.version] = item.weight
        changed = await self._catalog.set_weights(
            project, route, weights, _change(request.reason), etag=request.etag, prune=request.prune
        )
        return self._message(changed)

    async def ListRouteSnapshots(
        self, request: route_service_pb2.ListRouteSnapshotsRequest, context: Any
    ) -> route_service_pb2.ListRouteSnapshotsResponse:
        """See the contract."""
        project, route = names.split_route_name(request.parent, "parent")
        size = request.page_size or 100
        position = read_token(request.page_token)
        before = int(position) if position.isdigit() else _NEWEST
        found = await self._catalog.history(project, route, before=before, limit=size + 1)
        token = make_token(str(found[size - 1].route.generation)) if len(found) > size else ""
        return route_service_pb2.ListRouteSnapshotsResponse(
            route_snapshots=[convert.snapshot_message(snapshot) for snapshot in found[:size]],
            next_page_token=token,
        )

    async def WatchRoutes(
        self, request: route_service_pb2.WatchRoutesRequest, context: Any
    ) -> AsyncIterator[route_service_pb2.WatchRoutesResponse]:
        """See the contract."""
        async for event, token in self._router.watch(request.resume_token, _project(request.parent)):
            yield self._event(event, token)

    def _event(self, event: RouteEvent | None, token: str) -> route_service_pb2.WatchRoutesResponse:
        if event is None:
            return route_service_pb2.WatchRoutesResponse(
                type=route_service_pb2.ROUTE_EVENT_TYPE_SYNCED, resume_token=token
            )
        if event.route is None:
            return route_service_pb2.WatchRoutesResponse(
                type=route_service_pb2.ROUTE_EVENT_TYPE_REMOVED,
                route=route_pb2.Route(name=event.name),
                resume_token=token,
            )
        # As it is now, not as it was at the event: that is what a watcher wants, and later events repeat it.
        route = self._catalog.find(event.route.key) or event.route
        return route_service_pb2.WatchRoutesResponse(
            type=route_service_pb2.ROUTE_EVENT_TYPE_PUT, route=self._message(route), resume_token=token
        )

    def _message(self, route: Route) -> route_pb2.Route:
        return convert.route_message(route, self._router.table.find(route.key))


def _project(parent: str) -> str:
    project = parent.removeprefix("projects/")
    return "" if project == "-" else project


def _change(reason: str) -> Change:
    identity = current_identity()
    span = trace.get_current_span().get_span_context()
    return Change(
        creator=identity.name if identity is not None else "",
        reason=reason,
        trace_id=f"{span.trace_id:032x}" if span.is_valid else "",
    )


def _check_mask(paths: list[str]) -> None:
    """Every path must be of a field that can be changed, and exist."""
    for path in paths:
        top = path.partition(".")[0]
        known = top in _EDITABLE and field_mask_pb2.FieldMask(paths=[path]).IsValidForDescriptor(
            route_pb2.Route.DESCRIPTOR
        )
        if path != "*" and not known:
            text = f"{path!r} cannot be changed; possible are {', '.join(_EDITABLE)}, fields of policy, and *"
            raise errors.InvalidArgument(
                text,
                reason="UPDATE_MASK_INVALID",
                violations=[errors.FieldViolation("update_mask", text, "UPDATE_MASK_INVALID")],
            )


def _merged(current: Route, wanted: route_pb2.Route, paths: list[str]) -> route_pb2.Route:
    """The route that is asked for: what the mask names from the request, the rest as it is."""
    merged = convert.route_message(current)
    if not paths or "*" in paths:
        paths = list(_EDITABLE)
    mask = field_mask_pb2.FieldMask(paths=paths)
    mask.MergeMessage(wanted, merged, replace_message_field=True, replace_repeated_field=True)
    if "annotations" in paths:  # a map is merged key by key otherwise
        merged.annotations.clear()
        merged.annotations.update(wanted.annotations)
    merged.model = wanted.model or merged.model
    return merged
