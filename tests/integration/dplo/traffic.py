"""Constant load on both faces of the gateway, with every answer and every failure kept."""

import asyncio
import contextlib
import struct
from types import TracebackType
from typing import Any

import grpc
import httpx
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc

from tests.integration.dplo.stack import Neighbours


class Load:
    """One request after another over gRPC and over REST, from when a route exists."""

    def __init__(self, neighbours: Neighbours, project: str) -> None:
        self._neighbours = neighbours
        self._project = project
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._answered = asyncio.Condition()

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._grpc()), asyncio.create_task(self._rest())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def requests(self, count: int) -> None:
        """Waits until so many more were answered."""
        goal = len(self.answers) + count
        async with asyncio.timeout(30), self._answered:
            await self._answered.wait_for(lambda: len(self.answers) >= goal)

    async def _note(self, answer: float) -> None:
        async with self._answered:
            self.answers.append(answer)
            self._answered.notify_all()

    async def _routed(self) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._neighbours.route(self._project)
                return
            await asyncio.sleep(0.05)

    async def _grpc(self) -> None:
        await self._routed()
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
        request = pb.ModelInferRequest(
            model_name=f"{self._project}/plus", inputs=[tensor], raw_input_contents=[struct.pack("<f", 0.0)]
        )
        async with grpc.aio.insecure_channel(self._neighbours.gateway.grpc_address) as channel:
            stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while True:
                try:
                    answer = await stub.ModelInfer(request, timeout=20)
                    await self._note(struct.unpack("<f", answer.raw_output_contents[0])[0])
                except grpc.aio.AioRpcError as error:
                    self.failures.append(f"gRPC {error.code().name}: {error.details()}")
                await asyncio.sleep(0.01)

    async def _rest(self) -> None:
        await self._routed()
        url = f"{self._neighbours.gateway.rest_url}/v2/models/{self._project}/plus/infer"
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0.0]}]}
        async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
            while True:
                try:
                    answer = await client.post(url, json=body)
                except httpx.HTTPError as error:
                    self.failures.append(f"REST {type(error).__name__}: {error}")
                    continue
                if answer.status_code == 200:
                    await self._note(answer.json()["outputs"][0]["data"][0])
                else:
                    self.failures.append(f"REST {answer.status_code}: {answer.text}")
                await asyncio.sleep(0.01)
