"""Operations that follow rollouts. What they wait for is stored: a restart takes them up again."""

import asyncio
from collections.abc import Mapping

from chassis import errors
from chassis.operations import Operation, Operations, Progress, Work
from google.protobuf import empty_pb2
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from dplo.api import view
from dplo.api.times import to_timestamp
from dplo.app.deployments import Applied, Deployments
from dplo.domain.deployment import Deployment
from dplo.domain.names import DeploymentName, parse_revision
from dplo.domain.rollout import RolloutState

ROLLOUT = "FollowRollout"
DELETION = "FollowDeletion"
_Metadata = deployment_service_pb2.DeploymentOperationMetadata


class RolloutOperations:
    """Starts and takes up the operations of this service."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    @property
    def resumers(self) -> Mapping[str, Work]:
        """How each kind goes on after a restart."""
        return {ROLLOUT: self._follow_rollout, DELETION: self._follow_deletion}

    async def start_rollout(self, operations: Operations, verb: str, applied: Applied) -> Operation:
        """An operation that is done when the revision's rollout is over or waits for a person."""
        deployment = applied.deployment
        metadata = _Metadata(
            deployment=str(deployment.name),
            revision=deployment.name.revision(applied.revision),
            verb=verb,
            progress=view.progress(deployment),
            create_time=to_timestamp(deployment.updated_at),
        )
        return await operations.start(ROLLOUT, self._follow_rollout, metadata=metadata)

    async def start_deletion(self, operations: Operations, name: DeploymentName) -> Operation:
        """An operation that is done when nothing is left."""
        metadata = _Metadata(deployment=str(name), verb="delete")
        return await operations.start(DELETION, self._follow_deletion, metadata=metadata)

    async def _follow_rollout(self, progress: Progress) -> deployment_pb2.Deployment:
        metadata = _metadata(progress)
        name, number = parse_revision(metadata.revision)
        showing = asyncio.create_task(self._show(progress, name, number), name=f"progress {progress.name}")
        try:
            deployment = await self._deployments.settled(name, number)
        finally:
            showing.cancel()
            await asyncio.wait([showing])
        if deployment is None:
            raise errors.Aborted(f"{name} was deleted", reason="DEPLOYMENT_DELETED")
        await progress.update(_shown(metadata, deployment))
        if deployment.rollout.revision != number:
            await self._raise_replaced(name, number)
        if deployment.rollout.state is RolloutState.FAILED:
            rollout = deployment.rollout
            raise errors.FailedPrecondition(
                f"revision {number} of {name} failed: {rollout.message}",
                reason=rollout.reason or "ROLLOUT_FAILED",
                metadata={"revision": name.revision(number)},
            )
        return view.deployment(deployment)

    async def _raise_replaced(self, name: DeploymentName, number: int) -> None:
        """Another revision is present: this one was rolled back or superseded, or was complete before."""
        revision = await self._deployments.revision(name, number)
        if revision.state is RolloutState.COMPLETE:
            return
        kind = "ROLLOUT_ROLLED_BACK" if revision.state is RolloutState.ROLLED_BACK else "ROLLOUT_SUPERSEDED"
        state = revision.state.value.replace("_", " ")
        raise errors.Aborted(
            f"revision {number} of {name} was {state}: {revision.state_message}",
            reason=kind,
            metadata={"revision": name.revision(number), "state": revision.state.value},
        )

    async def _follow_deletion(self, progress: Progress) -> empty_pb2.Empty:
        await self._deployments.gone(DeploymentName.parse(_metadata(progress).deployment))
        return empty_pb2.Empty()

    async def _show(self, progress: Progress, name: DeploymentName, number: int) -> None:
        """Keeps the operation's metadata at what the rollout does."""
        metadata = _metadata(progress)
        async for deployment in self._deployments.changes(name):
            if deployment.rollout.revision != number:
                return
            shown = _shown(metadata, deployment)
            if shown != metadata:
                metadata = shown
                await progress.update(metadata)


def _metadata(progress: Progress) -> deployment_service_pb2.DeploymentOperationMetadata:
    packed = progress.operation.metadata
    return _Metadata.FromString(packed.value if packed is not None else b"")


def _shown(
    metadata: deployment_service_pb2.DeploymentOperationMetadata, deployment: Deployment
) -> deployment_service_pb2.DeploymentOperationMetadata:
    shown = _Metadata()
    shown.CopyFrom(metadata)
    shown.progress.CopyFrom(view.progress(deployment))
    if shown.progress.HasField("end_time"):
        shown.end_time.CopyFrom(shown.progress.end_time)
    return shown
