"""SourceService: in the contract, not executed by this version."""

from typing import Any, NoReturn

from penstock.dplo.v1 import source_service_pb2_grpc

from dplo.api.errors import not_available


class SourceServicer(source_service_pb2_grpc.SourceServiceServicer):
    """Every method says so."""

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise not_available("A Git source of declarations", "apply declarations with ApplyDeployment")

    GetSource = ListSources = CreateSource = UpdateSource = DeleteSource = SyncSource = _refuse
