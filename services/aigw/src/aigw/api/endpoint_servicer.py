"""EndpointService: converts, calls the registry, converts."""

from collections.abc import AsyncIterator
from typing import Any

from chassis.clock import Clock
from google.protobuf import empty_pb2
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc

from aigw.api import convert, paging
from aigw.app.registry import EndpointRegistry, EventKind, RegistryEvent
from aigw.app.routing import Router

DEFAULT_TTL = 15.0


class EndpointServicer(endpoint_service_pb2_grpc.EndpointServiceServicer):
    """Endpoints and leases as the contract tells them."""

    def __init__(self, registry: EndpointRegistry, router: Router, clock: Clock) -> None:
        self._registry = registry
        self._router = router
        self._clock = clock

    async def RegisterEndpoint(
        self, request: pb.RegisterEndpointRequest, context: Any
    ) -> pb.RegisterEndpointResponse:
        """See the contract."""
        endpoint = convert.read_endpoint(request.parent, request.endpoint_id, request.endpoint)
        ttl = convert.seconds(request.ttl) or DEFAULT_TTL
        registration = await self._registry.register(endpoint, ttl)
        return pb.RegisterEndpointResponse(
            endpoint=convert.endpoint_message(registration, self._router, self._clock),
            lease=convert.lease_message(registration, self._clock),
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.Lease:
        """See the contract."""
        return convert.lease_message(self._registry.renew(request.name, request.lease_id), self._clock)

    async def DeregisterEndpoint(
        self, request: pb.DeregisterEndpointRequest, context: Any
    ) -> empty_pb2.Empty:
        """See the contract."""
        await self._registry.deregister(request.name, request.lease_id)
        return empty_pb2.Empty()

    async def GetEndpoint(self, request: pb.GetEndpointRequest, context: Any) -> pb.Endpoint:
        """See the contract."""
        return convert.endpoint_message(self._registry.get(request.name), self._router, self._clock)

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Any) -> pb.ListEndpointsResponse:
        """See the contract."""
        project, model = _scope(request.parent)
        found = self._registry.select(project, model, request.version)
        chosen, token = paging.page(
            found, lambda r: r.endpoint.name, request.page_size or 1000, request.page_token
        )
        return pb.ListEndpointsResponse(
            endpoints=[convert.endpoint_message(item, self._router, self._clock) for item in chosen],
            next_page_token=token,
        )

    async def WatchEndpoints(
        self, request: pb.WatchEndpointsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEndpointsResponse]:
        """See the contract."""
        project, model = _scope(request.parent)
        async for event, token in self._registry.watch(request.resume_token, project, model):
            yield self._event(event, token)

    async def DrainEndpoint(self, request: pb.DrainEndpointRequest, context: Any) -> pb.Endpoint:
        """See the contract."""
        registration = await self._registry.drain(request.name, request.lease_id)
        return convert.endpoint_message(registration, self._router, self._clock)

    def _event(self, event: RegistryEvent | None, token: str) -> pb.WatchEndpointsResponse:
        if event is None:
            return pb.WatchEndpointsResponse(type=pb.ENDPOINT_EVENT_TYPE_SYNCED, resume_token=token)
        put = event.kind is EventKind.PUT
        return pb.WatchEndpointsResponse(
            type=pb.ENDPOINT_EVENT_TYPE_PUT if put else pb.ENDPOINT_EVENT_TYPE_REMOVED,
            endpoint=convert.endpoint_message(event.registration, self._router, self._clock),
            resume_token=token,
        )


def _scope(parent: str) -> tuple[str, str]:
    """Project and model of a parent in which `-` stands for all."""
    _, project, _, model = parent.split("/")
    return "" if project == "-" else project, "" if model == "-" else model
