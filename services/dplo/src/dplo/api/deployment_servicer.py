"""DeploymentService: convert, call, convert."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

from chassis import errors
from chassis.auth import current_identity
from chassis.operations import Operations
from chassis.operations.servicer import to_proto
from chassis.paging import make_token, read_token
from google.longrunning import operations_pb2
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc

from dplo.api import paging, view
from dplo.api.declaration import read_declaration
from dplo.api.errors import not_available
from dplo.api.rollouts import RolloutOperations
from dplo.api.spec import declared_versions, targets_of, to_spec
from dplo.app.deployments import Deployments
from dplo.app.watch import Sighting
from dplo.domain.names import DeploymentName, parse_replica, parse_revision
from dplo.domain.rules import check_targets
from dplo.domain.spec import Spec

pb = deployment_service_pb2
Watch = Callable[[DeploymentName, int | None], AsyncIterator[Sighting]]
Locate = Callable[[tuple[errors.FieldViolation, ...]], list[errors.FieldViolation]]
_DEFAULT_LINES = 100


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """The methods of the contract."""

    def __init__(
        self, deployments: Deployments, operations: Operations, rollouts: RolloutOperations, watch: Watch
    ) -> None:
        self._deployments = deployments
        self._operations = operations
        self._rollouts = rollouts
        self._watch = watch

    async def ApplyDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        """See the contract."""
        message, locate = _source(request)
        name, spec = _declared(message, locate)
        try:
            applied = await self._deployments.apply(
                name,
                spec,
                etag=request.etag or message.etag,
                author=_author(request),
                message=request.message,
                force=request.force,
            )
        except errors.Error as error:
            raise _located(error, locate) from error
        return to_proto(await self._rollouts.start_rollout(self._operations, "apply", applied))

    async def PlanDeployment(self, request: Any, context: Any) -> pb.PlanDeploymentResponse:
        """See the contract."""
        message, locate = _source(request)
        name, spec = _declared(message, locate)
        try:
            return view.plan_response(name, await self._deployments.plan(name, spec))
        except errors.Error as error:
            raise _located(error, locate) from error

    async def GetDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        """See the contract."""
        return view.deployment(await self._deployments.get(DeploymentName.parse(request.name)))

    async def ListDeployments(self, request: Any, context: Any) -> pb.ListDeploymentsResponse:
        """See the contract."""
        if request.filter:
            raise not_available("A filter of ListDeployments", "leave `filter` empty")
        size = paging.page_size(request.page_size)
        project = request.parent.partition("/")[2]
        after = read_token(request.page_token)
        found = await self._deployments.list(None if project == "-" else project, after, size + 1)
        token = make_token(str(found[size - 1].name)) if len(found) > size else ""
        return pb.ListDeploymentsResponse(
            deployments=[view.deployment(d) for d in found[:size]], next_page_token=token
        )

    async def DeleteDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        """See the contract."""
        name = DeploymentName.parse(request.name)
        try:
            await self._deployments.delete(name, etag=request.etag, author=_author(request))
        except errors.NotFound:
            if not request.allow_missing:
                raise
        return to_proto(await self._rollouts.start_deletion(self._operations, name))

    async def GetRevision(self, request: Any, context: Any) -> deployment_pb2.Revision:
        """See the contract."""
        name, number = parse_revision(request.name)
        return view.revision(name, await self._deployments.revision(name, number))

    async def ListRevisions(self, request: Any, context: Any) -> pb.ListRevisionsResponse:
        """See the contract."""
        name = DeploymentName.parse(request.parent)
        size = paging.page_size(request.page_size)
        position = read_token(request.page_token)
        below = int(position) if position.isdigit() else None
        found = await self._deployments.revisions(name, below, size + 1)
        token = make_token(str(found[size - 1].number)) if len(found) > size else ""
        return pb.ListRevisionsResponse(
            revisions=[view.revision(name, r) for r in found[:size]], next_page_token=token
        )

    async def RollbackDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        """See the contract."""
        name = DeploymentName.parse(request.name)
        number = _revision_of(name, request.revision) if request.revision else None
        applied = await self._deployments.roll_back(
            name, number, etag=request.etag, author=_author(request), message=request.message
        )
        return to_proto(await self._rollouts.start_rollout(self._operations, "rollback", applied))

    async def PromoteDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        """See the contract."""
        applied = await self._deployments.promote(
            DeploymentName.parse(request.name),
            etag=request.etag,
            author=_author(request),
            to_completion=request.to_completion,
        )
        return to_proto(await self._rollouts.start_rollout(self._operations, "promote", applied))

    async def PauseDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        """See the contract."""
        applied = await self._deployments.pause(
            DeploymentName.parse(request.name), etag=request.etag, author=_author(request)
        )
        return view.deployment(applied.deployment)

    async def ResumeDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        """See the contract."""
        applied = await self._deployments.resume(
            DeploymentName.parse(request.name), etag=request.etag, author=_author(request)
        )
        return view.deployment(applied.deployment)

    async def AbortDeployment(self, request: Any, context: Any) -> operations_pb2.Operation:
        """See the contract."""
        applied = await self._deployments.abort(
            DeploymentName.parse(request.name),
            etag=request.etag,
            author=_author(request),
            message=request.message,
        )
        return to_proto(await self._rollouts.start_rollout(self._operations, "abort", applied))

    async def WatchDeployment(self, request: Any, context: Any) -> AsyncIterator[pb.WatchDeploymentResponse]:
        """See the contract."""
        name = DeploymentName.parse(request.name)
        async for sighting in self._watch(name, _resume(request.resume_token)):
            yield pb.WatchDeploymentResponse(
                resume_token=str(sighting.sequence),
                event=view.event(name, sighting.event) if sighting.event is not None else None,
                deployment=view.deployment(sighting.deployment) if sighting.deployment else None,
            )

    async def GetDeploymentDrift(self, request: Any, context: Any) -> pb.DeploymentDrift:
        """See the contract."""
        name = DeploymentName.parse(request.name)
        hops, observed_at = await self._deployments.drift(name)
        return view.drift(name, hops, observed_at)

    async def GetReplicaLogs(self, request: Any, context: Any) -> pb.ReplicaLogs:
        """See the contract."""
        name, replica = parse_replica(request.name)
        tail = await self._deployments.logs(name, replica, request.lines or _DEFAULT_LINES)
        return pb.ReplicaLogs(replica=request.name, lines=tail.lines, truncated=tail.truncated)

    async def TailReplicaLogs(self, request: Any, context: Any) -> NoReturn:  # type: ignore[override]  # no stream
        """See the contract."""
        raise not_available("Following a replica's log", "GetReplicaLogs gives the end of it")


def _source(request: Any) -> tuple[deployment_pb2.Deployment, Locate]:
    """The message of a request, and how its violations are told: by field of the request, or by place in the
    text.
    """
    if request.WhichOneof("source") == "declaration":
        declared = read_declaration(request.declaration)
        return declared.message, declared.locate
    return request.deployment, _within_request


def _within_request(violations: tuple[errors.FieldViolation, ...]) -> list[errors.FieldViolation]:
    return [errors.FieldViolation(f"deployment.{v.field}", v.description, v.reason) for v in violations]


def _declared(message: deployment_pb2.Deployment, locate: Locate) -> tuple[DeploymentName, Spec]:
    name = DeploymentName.parse(message.name)
    wrong = check_targets(targets_of(message), declared_versions(message))
    if wrong:
        error = errors.InvalidArgument(
            "the declaration is not valid", reason="DECLARATION_INVALID", violations=wrong
        )
        raise _located(error, locate)
    return name, to_spec(message)


def _located(error: errors.Error, locate: Locate) -> errors.Error:
    """The same error with its violations told by place; an error about something else stays as it is."""
    if not error.violations or error.violations[0].field == "etag":
        return error
    violations = locate(error.violations)
    first = violations[0].description
    shown = first if violations[0].field in first else f"{violations[0].field}: {first}"
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return type(error)(
        f"the declaration cannot be applied: {shown}{more}",
        reason=error.reason,
        metadata=error.metadata,
        violations=violations,
        retry_after=error.retry_after,
    )


def _author(request: Any) -> str:
    """Who asks: the authenticated caller before any name that was given."""
    identity = current_identity()
    return identity.name if identity is not None else str(request.author)


def _revision_of(name: DeploymentName, revision: str) -> int:
    owner, number = parse_revision(revision)
    if owner != name:
        raise errors.InvalidArgument(
            f"'{revision}' is not a revision of {name}",
            reason="REVISION_OF_ANOTHER",
            violations=[errors.FieldViolation("revision", f"must be {name}/revisions/{{revision}}")],
        )
    return number


def _resume(token: str) -> int | None:
    if not token:
        return None
    if not token.isdigit():
        raise errors.InvalidArgument(
            f"'{token}' is not a resume token that this method gave; watch without one",
            reason="RESUME_TOKEN_INVALID",
            violations=[errors.FieldViolation("resume_token", "malformed", "RESUME_TOKEN_INVALID")],
        )
    return int(token)
