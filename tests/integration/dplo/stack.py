"""What the tests of rollouts share: packages of a small model, the neighbours, and one run of the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from chassis import status
from chassis.testing.process import ServiceProcess, service_process
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import duration_pb2
from penstock.aigw.v1 import (
    endpoint_service_pb2,
    endpoint_service_pb2_grpc,
    route_pb2,
    route_service_pb2,
    route_service_pb2_grpc,
)
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc
from penstock.mds.v1 import package_service_pb2, package_service_pb2_grpc

pb = deployment_service_pb2

MODEL = """
import os
import sys

import numpy as np
from mds import TensorSpec, inference, load, serving


@serving(inputs=[TensorSpec("x", "FP32", [-1, 1])], outputs=[TensorSpec("y", "FP32", [-1, 1])])
class Plus:
    @load
    def start(self, context):
        if os.environ.get("FAIL_TO_LOAD"):
            print("no weights for this planet", file=sys.stderr)
            raise RuntimeError("no weights for this planet")

    @inference
    def run(self, x):
        if os.environ.get("FAIL_TO_RUN"):
            raise RuntimeError("this planet has no numbers")
        return x + np.float32({version})
"""


@dataclass(frozen=True)
class Packages:
    """Archives of versions 1 to 3 of the model `plus`, which adds its version to its input."""

    folder: Path

    def archive(self, version: str) -> Path:
        return self.folder / f"plus-{version}.mdspkg"


@dataclass
class Neighbours:
    """Where the gateway and the package service are, and what is needed to talk to them."""

    folder: Path
    gateway: ServiceProcess
    store: ServiceProcess
    packages: Packages

    async def upload(self, project: str, *versions: str) -> None:
        async with grpc.aio.insecure_channel(self.store.grpc_address) as channel:
            stub = package_service_pb2_grpc.PackageServiceStub(channel)
            for version in versions:
                name = f"projects/{project}/models/plus/packages/{version}"
                content = self.packages.archive(version).read_bytes()
                start = package_service_pb2.UploadStart(name=name)
                await stub.UploadPackage(
                    iter(
                        [
                            package_service_pb2.UploadPackageRequest(start=start),
                            package_service_pb2.UploadPackageRequest(chunk=content),
                        ]
                    )
                )

    async def route(self, project: str) -> route_pb2.Route:
        async with grpc.aio.insecure_channel(self.gateway.grpc_address) as channel:
            stub = route_service_pb2_grpc.RouteServiceStub(channel)
            name = f"projects/{project}/routes/plus"
            return await stub.GetRoute(route_service_pb2.GetRouteRequest(name=name))

    async def endpoints(self, project: str) -> list[str]:
        async with grpc.aio.insecure_channel(self.gateway.grpc_address) as channel:
            stub = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
            request = endpoint_service_pb2.ListEndpointsRequest(parent=f"projects/{project}/models/plus")
            return [e.name.rpartition("/")[2] for e in (await stub.ListEndpoints(request)).endpoints]


@dataclass
class Dplo:
    """One run of the service and a client of it."""

    process: ServiceProcess
    channel: grpc.aio.Channel
    stub: Any = field(init=False)
    operations: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stub = deployment_service_pb2_grpc.DeploymentServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    async def apply(self, declaration: str, **more: Any) -> operations_pb2.Operation:
        text = pb.Declaration(filename="plus.yaml", content=declaration)
        return await self.stub.ApplyDeployment(pb.ApplyDeploymentRequest(declaration=text, **more))

    async def wait(
        self, operation: operations_pb2.Operation, timeout: float = 40
    ) -> deployment_pb2.Deployment:
        """The deployment that an operation ends with; its error is raised."""
        limit = duration_pb2.Duration(seconds=int(timeout))
        request = operations_pb2.WaitOperationRequest(name=operation.name, timeout=limit)
        done = await self.operations.WaitOperation(request)
        assert done.done, f"not done within {timeout} s:\n{self.process.log()[-6000:]}"
        if done.HasField("error"):
            raise status.from_status(done.error)
        deployment = deployment_pb2.Deployment()
        done.response.Unpack(deployment)
        return deployment

    async def get(self, project: str) -> deployment_pb2.Deployment:
        name = f"projects/{project}/deployments/plus"
        return await self.stub.GetDeployment(pb.GetDeploymentRequest(name=name))

    async def until(
        self, project: str, holds: Callable[[deployment_pb2.Deployment], bool], timeout: float = 40
    ) -> deployment_pb2.Deployment:
        """The deployment once something holds of it, by watching."""
        name = f"projects/{project}/deployments/plus"
        deployment = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                async for answer in self.stub.WatchDeployment(pb.WatchDeploymentRequest(name=name)):
                    deployment = answer.deployment
                    if holds(deployment):
                        return deployment
        raise AssertionError(f"not so within {timeout} s: {deployment}\n{self.process.log()[-6000:]}")


@contextlib.asynccontextmanager
async def running_dplo(
    neighbours: Neighbours, environ: Mapping[str, str] | None = None, *, wait: bool = True
) -> AsyncIterator[Dplo]:
    """The service as a child process; its state is kept in the test's folder from run to run."""
    settings = {
        "DPLO_STORE__URL": f"sqlite+aiosqlite:///{neighbours.folder / 'dplo.db'}",
        "DPLO_LOCAL__STATE_DIR": str(neighbours.folder / "local"),
        "DPLO_GATEWAY__ADDRESS": neighbours.gateway.grpc_address,
        "DPLO_PACKAGES__ADDRESS": neighbours.store.grpc_address,
        "DPLO_LOCAL__LOOPING_AFTER": "2",
        "PENSTOCK_STACK": str(neighbours.folder),
        **(environ or {}),
    }
    async with (
        service_process("dplo", environ=settings, wait=wait) as process,
        grpc.aio.insecure_channel(process.grpc_address or "127.0.0.1:1") as channel,
    ):
        yield Dplo(process, channel)


def replica_pids(folder: Path) -> list[int]:
    """Model servers that run for a test, found by their environment and not by what the service says."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        mine = f"PENSTOCK_STACK={folder}".encode() in variables
        replica = any(v.startswith(b"MDS_INSTANCE_ID=") for v in variables)
        if mine and replica and state != "Z":
            found.append(int(entry.name))
    return sorted(found)


def declaration(
    project: str, traffic: Mapping[str, int], *, replicas: int = 1, more: str = "", split: bool = True
) -> str:
    """A deployment of the model `plus` as a person writes it; without `split` the traffic is left out."""
    versions = "".join(
        f"  - package: {{package: projects/{project}/models/plus/packages/{v}}}\n    replicas: {replicas}\n"
        for v in traffic
    )
    targets = "".join(f"  - {{version: '{v}', percent: {p}}}\n" for v, p in traffic.items())
    return (
        f"name: projects/{project}/deployments/plus\nmodel: projects/{project}/models/plus\n"
        f"versions:\n{versions}{f'traffic:{chr(10)}{targets}' if split else ''}{more}"
    )
