"""Deployments: declaring, following and taking back which versions of a model are in service."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import duration_pb2, json_format
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from penstock_client import names, status
from penstock_client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PenstockError,
    RolloutFailed,
    Unavailable,
)
from penstock_client.retry import RetryPolicy, draw_jitter
from penstock_client.transport import Remote

Deployment = deployment_pb2.Deployment
WatchResponse = deployment_service_pb2.WatchDeploymentResponse
OnChange = Callable[[WatchResponse], None]
"""Called with the deployment as it is, and then with each thing that happens to it."""

_SERVICE = deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"]
_OPERATIONS = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
_WAIT_SLICE = 20.0
_LAST_EVENTS = 1.0
_FAILED = {
    deployment_pb2.ROLLOUT_STATE_FAILED,
    deployment_pb2.ROLLOUT_STATE_ROLLED_BACK,
    deployment_pb2.ROLLOUT_STATE_SUPERSEDED,
}
_SETTLED = _FAILED | {
    deployment_pb2.ROLLOUT_STATE_COMPLETE,
    deployment_pb2.ROLLOUT_STATE_AWAITING_PROMOTION,
    deployment_pb2.ROLLOUT_STATE_PAUSED,
}


class AsyncDeployments:
    """`client.deployments`: models in service.

    Every change has `wait`: with it, the default, the call answers when the rollout is complete or waits
    for a person, and raises RolloutFailed when it did not get there; without, it answers as soon as the
    change is taken.
    """

    def __init__(self, service: Remote, project: str | None, retry: RetryPolicy) -> None:
        self._service = service
        self._project = project
        self._retry = retry

    async def plan(
        self, declaration: Path | Mapping[str, Any] | Deployment
    ) -> deployment_service_pb2.PlanDeploymentResponse:
        """What applying the declaration would change and do."""
        request = deployment_service_pb2.PlanDeploymentRequest(**_source(declaration))
        return await self._service.unary(
            "PlanDeployment",
            request,
            deployment_service_pb2.PlanDeploymentResponse,
            service=_SERVICE,
            safe=True,
        )

    async def apply(
        self,
        declaration: Path | Mapping[str, Any] | Deployment,
        *,
        message: str = "",
        author: str | None = None,
        etag: str = "",
        force: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Deployment:
        """Makes the deployment what the declaration (a YAML file, a mapping, or a message) says.

        `timeout` bounds the waiting in seconds; the rollout itself goes on. Applying what is already declared
        changes nothing.
        """
        request = deployment_service_pb2.ApplyDeploymentRequest(
            **_source(declaration), author=_author(author), message=message, etag=etag, force=force
        )
        return await self._change("ApplyDeployment", request, wait, timeout, on_change)

    async def rollback(
        self,
        deployment: str,
        *,
        revision: int | None = None,
        message: str = "",
        author: str | None = None,
        wait: bool = True,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Deployment:
        """Goes back to an earlier revision, by default to the last complete one before the present."""
        name = self._name(deployment)
        request = deployment_service_pb2.RollbackDeploymentRequest(
            name=name,
            revision=f"{name}/revisions/{revision}" if revision is not None else "",
            author=_author(author),
            message=message,
        )
        return await self._change("RollbackDeployment", request, wait, timeout, on_change)

    async def promote(
        self,
        deployment: str,
        *,
        to_completion: bool = False,
        author: str | None = None,
        wait: bool = True,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> Deployment:
        """Lets a rollout that waits at a step go on; to its end and without further waiting with
        `to_completion`.
        """
        request = deployment_service_pb2.PromoteDeploymentRequest(
            name=self._name(deployment), to_completion=to_completion, author=_author(author)
        )
        return await self._change("PromoteDeployment", request, wait, timeout, on_change)

    async def delete(
        self,
        deployment: str,
        *,
        allow_missing: bool = False,
        author: str | None = None,
        wait: bool = True,
        timeout: float | None = None,
        on_change: OnChange | None = None,
    ) -> None:
        """Takes a deployment out of service: its route first, then its replicas."""
        request = deployment_service_pb2.DeleteDeploymentRequest(
            name=self._name(deployment), allow_missing=allow_missing, author=_author(author)
        )
        operation = await self._start("DeleteDeployment", request)
        if wait and not operation.done:
            operation = await self._finish(operation, self._name(deployment), timeout, on_change)
        if operation.HasField("error"):
            raise status.from_status(operation.error, origin=self._service.origin)

    async def get(self, deployment: str) -> Deployment:
        """One deployment (`project/deployment`), declared and observed."""
        request = deployment_service_pb2.GetDeploymentRequest(name=self._name(deployment))
        return await self._service.unary("GetDeployment", request, Deployment, service=_SERVICE, safe=True)

    async def list(self, project: str = "-") -> Sequence[Deployment]:
        """The deployments of a project, or of all."""
        found: Sequence[Deployment] = []
        token = ""
        while True:
            page = await self._service.unary(
                "ListDeployments",
                deployment_service_pb2.ListDeploymentsRequest(parent=f"projects/{project}", page_token=token),
                deployment_service_pb2.ListDeploymentsResponse,
                service=_SERVICE,
                safe=True,
            )
            found = [*found, *page.deployments]
            token = page.next_page_token
            if not token:
                return found

    async def history(self, deployment: str) -> Sequence[deployment_pb2.Revision]:
        """The deployment's revisions, newest first."""
        found: Sequence[deployment_pb2.Revision] = []
        token = ""
        while True:
            page = await self._service.unary(
                "ListRevisions",
                deployment_service_pb2.ListRevisionsRequest(parent=self._name(deployment), page_token=token),
                deployment_service_pb2.ListRevisionsResponse,
                service=_SERVICE,
                safe=True,
            )
            found = [*found, *page.revisions]
            token = page.next_page_token
            if not token:
                return found

    async def drift(self, deployment: str) -> deployment_service_pb2.DeploymentDrift:
        """How each hop of the chain differs from the declaration, asked now."""
        return await self._service.unary(
            "GetDeploymentDrift",
            deployment_service_pb2.GetDeploymentDriftRequest(name=self._name(deployment)),
            deployment_service_pb2.DeploymentDrift,
            service=_SERVICE,
            safe=True,
        )

    async def logs(self, replica: str, *, lines: int = 100) -> deployment_service_pb2.ReplicaLogs:
        """The end of a replica's log; `replica` is its full name."""
        return await self._service.unary(
            "GetReplicaLogs",
            deployment_service_pb2.GetReplicaLogsRequest(name=replica, lines=lines),
            deployment_service_pb2.ReplicaLogs,
            service=_SERVICE,
            safe=True,
        )

    async def watch(self, deployment: str) -> AsyncIterator[WatchResponse]:
        """The deployment as it is, then each thing that happens to it, until it is gone.

        A connection that breaks is taken up again where it broke.
        """
        request = deployment_service_pb2.WatchDeploymentRequest(name=self._name(deployment))
        attempt = 0
        while True:
            try:
                async for response in self._service.server_stream(
                    "WatchDeployment", request, WatchResponse, service=_SERVICE
                ):
                    attempt = 0
                    request.resume_token = response.resume_token
                    yield response
                return
            except Unavailable as error:
                attempt += 1
                pause = self._retry.delay(error, attempt, jitter=draw_jitter())
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def _change(
        self, method: str, request: Any, wait: bool, timeout: float | None, on_change: OnChange | None
    ) -> Deployment:
        operation = await self._start(method, request)
        metadata = deployment_service_pb2.DeploymentOperationMetadata()
        operation.metadata.Unpack(metadata)
        if wait and not operation.done:
            operation = await self._finish(operation, metadata.deployment, timeout, on_change)
        if operation.HasField("error"):
            raise self._failed(operation, metadata.deployment)
        deployment = Deployment()
        if operation.done and operation.response.Unpack(deployment):
            if wait and deployment.rollout_progress.state in _FAILED:
                raise RolloutFailed(
                    deployment.rollout_progress.message or "the rollout failed",
                    reason=deployment.rollout_progress.reason or "ROLLOUT_FAILED",
                    origin=self._service.origin,
                )
            return deployment
        return await self.get(metadata.deployment)

    async def _start(self, method: str, request: Any) -> operations_pb2.Operation:
        return await self._service.unary(method, request, operations_pb2.Operation, service=_SERVICE)

    async def _finish(
        self,
        operation: operations_pb2.Operation,
        deployment: str,
        timeout: float | None,
        on_change: OnChange | None,
    ) -> operations_pb2.Operation:
        """Waits for the operation while telling what happens meanwhile."""
        settled = asyncio.Event()
        reporter = asyncio.create_task(self._report(deployment, on_change, settled)) if on_change else None
        try:
            async with asyncio.timeout(timeout):
                operation = await self._wait(operation)
            if reporter is not None:
                # The last events are on their way; they belong before the result.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(settled.wait(), _LAST_EVENTS)
            return operation
        except TimeoutError:
            raise DeadlineExceeded(
                f"{names.short(deployment)} is still being rolled out after {timeout:g} s and goes on; "
                f"see: penstock deploy status {names.short(deployment)}",
                reason="WAIT_TIMEOUT",
                origin=self._service.origin,
            ) from None
        finally:
            if reporter is not None:
                reporter.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reporter

    async def _wait(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        while not operation.done:
            operation = await self._service.unary(
                "WaitOperation",
                operations_pb2.WaitOperationRequest(
                    name=operation.name, timeout=duration_pb2.Duration(seconds=int(_WAIT_SLICE))
                ),
                operations_pb2.Operation,
                service=_OPERATIONS,
                timeout=_WAIT_SLICE + 10,
                safe=True,
            )
        return operation

    async def _report(self, deployment: str, on_change: OnChange, settled: asyncio.Event) -> None:
        """Tells events until cancelled; that they cannot be had is no reason for the change itself to
        fail.
        """
        events = self.watch(deployment)
        while True:
            try:
                response = await anext(events, None)
            except PenstockError:
                response = None
            if response is None:
                settled.set()
                return
            on_change(response)
            if response.deployment.rollout_progress.state in _SETTLED:
                settled.set()

    def _failed(self, operation: operations_pb2.Operation, deployment: str) -> PenstockError:
        error = status.from_status(operation.error, origin=self._service.origin)
        return RolloutFailed(
            error.message or f"the rollout of {names.short(deployment)} failed",
            reason=error.reason,
            metadata=error.metadata,
            violations=error.violations,
            origin=self._service.origin,
        )

    def _name(self, text: str) -> str:
        return names.child_name("deployments", text, project=self._project)


def _source(declaration: Path | Mapping[str, Any] | Deployment) -> dict[str, Any]:
    """A file goes as its text, so that the service can name lines."""
    if isinstance(declaration, Deployment):
        return {"deployment": declaration}
    if isinstance(declaration, Path):
        try:
            content = declaration.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidArgument(
                f"cannot read the declaration {declaration}: {what}", reason="FILE_UNREADABLE"
            ) from error
        return {"declaration": deployment_service_pb2.Declaration(filename=str(declaration), content=content)}
    try:
        return {"deployment": json_format.ParseDict(dict(declaration), Deployment())}
    except json_format.ParseError as error:
        raise InvalidArgument(
            f"the declaration is not valid: {error}", reason="DECLARATION_INVALID"
        ) from error


def _author(author: str | None) -> str:
    """Who is at the keyboard, for the history of a service that does not authenticate its callers."""
    if author is not None:
        return author
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
