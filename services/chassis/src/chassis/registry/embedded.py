"""The embedded route provider, from the outside: a client of the gateway's `aigw.v1.EndpointService`."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import duration_pb2
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc

from chassis import errors, status
from chassis.registry.port import Endpoint, EndpointEvent, EventKind, Lease

_KINDS = {
    pb.ENDPOINT_EVENT_TYPE_PUT: EventKind.PUT,
    pb.ENDPOINT_EVENT_TYPE_REMOVED: EventKind.REMOVED,
    pb.ENDPOINT_EVENT_TYPE_SYNCED: EventKind.SYNCED,
}


class EmbeddedRegistry:
    """`Registrar` and `EndpointWatcher` over a channel that somebody else owns.

    `timeout` (seconds) bounds each call but the watch: a gateway that hangs must not stop a replica's other
    work.
    """

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float = 5.0) -> None:
        self._stub: Any = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
        self._timeout = timeout

    async def register(self, endpoint: Endpoint, ttl: float) -> Lease:
        """See `Registrar.register`."""
        request = pb.RegisterEndpointRequest(
            parent=f"projects/{endpoint.project}/models/{endpoint.model}",
            endpoint_id=endpoint.instance_id,
            endpoint=to_proto(endpoint),
            ttl=_duration(ttl),
        )
        answer = await self._call(self._stub.RegisterEndpoint, request)
        return _lease(answer.lease, ttl)

    async def renew(self, lease: Lease) -> Lease:
        """See `Registrar.renew`."""
        answer = await self._call(
            self._stub.RenewLease, pb.RenewLeaseRequest(name=lease.name, lease_id=lease.id)
        )
        return _lease(answer, lease.ttl)

    async def deregister(self, lease: Lease) -> None:
        """See `Registrar.deregister`."""
        request = pb.DeregisterEndpointRequest(name=lease.name, lease_id=lease.id)
        with contextlib.suppress(errors.NotFound):
            await self._call(self._stub.DeregisterEndpoint, request)

    async def watch(
        self, *, project: str | None = None, resume_token: str = ""
    ) -> AsyncIterator[EndpointEvent]:
        """See `EndpointWatcher.watch`. A token the gateway has forgotten gets RESET and a snapshot."""
        token = resume_token
        while True:
            if not token:
                yield EndpointEvent(EventKind.RESET, None, "")
            request = pb.WatchEndpointsRequest(
                parent=f"projects/{project or '-'}/models/-", resume_token=token
            )
            try:
                async for answer in self._stub.WatchEndpoints(request):
                    kind = _KINDS.get(answer.type)
                    if kind is None:
                        continue  # a kind of event newer than this client
                    endpoint = from_proto(answer.endpoint) if answer.HasField("endpoint") else None
                    yield EndpointEvent(kind, endpoint, answer.resume_token)
            except grpc.aio.AioRpcError as error:
                failure = status.from_rpc_error(error)
                if token and isinstance(failure, errors.OutOfRange):
                    token = ""
                    continue
                raise failure from error
            raise errors.Unavailable("the gateway ended the watch", reason="WATCH_ENDED")

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error


def to_proto(endpoint: Endpoint) -> pb.Endpoint:
    """The contract's message of an endpoint; its name is the gateway's to give."""
    return pb.Endpoint(
        version=endpoint.version,
        grpc_address=endpoint.grpc_address,
        http_address=endpoint.http_address or "",
        digest=endpoint.digest,
        labels=dict(endpoint.labels),
    )


def from_proto(message: pb.Endpoint) -> Endpoint:
    """The endpoint of a message. Raises DataLoss for a name that is none."""
    parts = message.name.split("/")
    if len(parts) != 6 or parts[0::2] != ["projects", "models", "endpoints"]:
        raise errors.DataLoss(
            f"the gateway told of an endpoint named {message.name!r}", reason="ENDPOINT_NAME_INVALID"
        )
    return Endpoint(
        project=parts[1],
        model=parts[3],
        version=message.version,
        instance_id=parts[5],
        grpc_address=message.grpc_address,
        http_address=message.http_address or None,
        digest=message.digest,
        labels=dict(message.labels),
    )


def _lease(message: pb.Lease, ttl: float) -> Lease:
    granted = message.ttl.ToNanoseconds() / 1e9 if message.HasField("ttl") else ttl
    return Lease(message.name, message.lease_id, granted)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
