"""The data-path port on grpc.aio: what bootstrap and services import."""

from chassis.transport.grpcio_server import DataPathHandler
from chassis.transport.grpcio_upstream import GrpcConnector, GrpcUpstream

__all__ = ["DataPathHandler", "GrpcConnector", "GrpcUpstream"]
