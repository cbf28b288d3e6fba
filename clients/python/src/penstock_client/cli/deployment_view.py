"""A deployment on a screen."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from penstock.common.v1 import types_pb2
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from penstock_client import names
from penstock_client.cli.output import age, table, word


def traffic(targets: Iterable[deployment_pb2.TrafficTarget]) -> str:
    """`1.0.0=90%, 2.0.0=10%`."""
    return ", ".join(f"{t.version}={t.percent}%" for t in targets) or "-"


def rollout(deployment: deployment_pb2.Deployment) -> str:
    """State of the rollout in a few words."""
    progress = deployment.rollout_progress
    text = word(deployment_pb2.RolloutState, progress.state, "ROLLOUT_STATE")
    running = progress.state in {
        deployment_pb2.ROLLOUT_STATE_RUNNING,
        deployment_pb2.ROLLOUT_STATE_AWAITING_PROMOTION,
        deployment_pb2.ROLLOUT_STATE_PAUSED,
    }
    if running:
        text += f", {word(deployment_pb2.RolloutPhase, progress.phase, 'ROLLOUT_PHASE')}"
        if progress.step >= 0 and progress.step_count:
            text += f", step {progress.step + 1} of {progress.step_count} ({progress.percent} %)"
    return text


def row(deployment: deployment_pb2.Deployment) -> tuple[str, ...]:
    """The deployment in a list."""
    observed = deployment.observed_versions
    return (
        names.short(deployment.name),
        rollout(deployment),
        ", ".join(v.version for v in deployment.versions),
        f"{sum(v.ready_replicas for v in observed)}/{sum(v.desired_replicas for v in observed)}",
        ", ".join(f"{v.version}={v.traffic_percent:g}%" for v in observed if v.traffic_percent) or "-",
        f"{age(deployment.update_time)} ago",
    )


def show(deployment: deployment_pb2.Deployment) -> None:
    """The deployment by itself."""
    revision = deployment.revision.rpartition("/")[2]
    print(f"{names.short(deployment.name)}  revision {revision or '-'}, {rollout(deployment)}")
    if deployment.rollout_progress.message:
        print(deployment.rollout_progress.message)
    print()
    table(
        ["version", "traffic", "ready", "package", "digest"],
        [
            (
                v.version,
                f"{v.traffic_percent:g}%",
                f"{v.ready_replicas}/{v.desired_replicas}",
                names.short(v.package.package),
                v.package.digest[:19],
            )
            for v in deployment.observed_versions
        ],
        empty="nothing runs yet",
    )
    replicas = [r for v in deployment.observed_versions for r in v.replicas]
    if replicas:
        print()
        table(
            ["replica", "version", "state", "grpc", "restarts", "age"],
            [
                (
                    r.name.rpartition("/")[2],
                    r.version,
                    word(deployment_pb2.ReplicaState, r.state, "REPLICA_STATE"),
                    r.grpc_address or "-",
                    r.restarts,
                    age(r.start_time),
                )
                for r in replicas
            ],
        )
    wrong = [c for c in deployment.conditions if c.status != types_pb2.CONDITION_STATUS_TRUE and c.message]
    if wrong:
        print()
        table(["not so", "since", "why"], [(c.type, age(c.last_transition_time), c.message) for c in wrong])


def is_step(response: deployment_service_pb2.WatchDeploymentResponse) -> bool:
    """Whether a response tells of something done, and not of a condition that follows from it."""
    kind = deployment_service_pb2.DEPLOYMENT_EVENT_TYPE_CONDITION_CHANGED
    return response.HasField("event") and response.event.type != kind


def event_line(event: deployment_service_pb2.DeploymentEvent) -> str:
    """One event in one line."""
    at = event.event_time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")
    phase = word(deployment_pb2.RolloutPhase, event.phase, "ROLLOUT_PHASE") if event.phase else ""
    moved = f" [{traffic(event.traffic)}]" if event.traffic else ""
    return f"  {at} {phase:<8} {event.message}{moved}"
