"""Services that the contract has and this version does not execute: every method says so in clear words."""

from typing import Any, NoReturn

from penstock.aigw.v1 import job_service_pb2_grpc, key_service_pb2_grpc

from aigw.api.traffic_servicer import not_available


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Asynchronous inference."""

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise not_available(
            "Asynchronous inference", "call the model through ModelInfer or /v2/models/.../infer"
        )

    CreateJob = GetJob = ListJobs = WaitJob = FetchJobResult = CancelJob = DeleteJob = _refuse


class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """API keys."""

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise not_available(
            "Management of API keys", "callers can be given tokens by the setting auth.tokens_file"
        )

    CreateKey = GetKey = ListKeys = UpdateKey = RotateKey = RevokeKey = DeleteKey = _refuse
