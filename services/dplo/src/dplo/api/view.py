"""What is observed of a deployment, its history, its events, and its plan: values → messages."""

from collections.abc import Iterable

from penstock.common.v1 import types_pb2
from penstock.dplo.v1 import cluster_service_pb2, deployment_pb2, deployment_service_pb2

from dplo.api.spec import from_pin, from_shares, from_spec
from dplo.api.times import to_timestamp
from dplo.app.deployments import Preview
from dplo.app.events import Event
from dplo.app.ports import ClusterFacts
from dplo.domain.conditions import Condition
from dplo.domain.deployment import Deployment, Revision, RevisionStep
from dplo.domain.drift import HopDrift
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Replica
from dplo.domain.plan import wanted_groups
from dplo.domain.preview import PlannedAction
from dplo.domain.rollout import Phase, RolloutState
from dplo.domain.spec import VersionSpec

_PB = deployment_pb2


def deployment(value: Deployment) -> deployment_pb2.Deployment:
    """A deployment, declared and observed."""
    message = from_spec(value.name, value.spec)
    message.uid = value.uid
    message.etag = value.etag
    message.generation = value.generation
    message.observed_generation = value.observed_generation
    message.reconciling = value.reconciling
    message.revision = value.name.revision(value.rollout.revision)
    message.route = value.model.route
    message.conditions.extend(_condition(c) for c in value.status.conditions)
    message.observed_versions.extend(_versions(value))
    message.drift.extend(_hop(hop, value.status.observed_at) for hop in value.status.drift)
    message.rollout_progress.CopyFrom(progress(value))
    for field, seconds in (
        ("create_time", value.created_at),
        ("update_time", value.updated_at),
        ("delete_time", value.deleted_at),
    ):
        stamp = to_timestamp(seconds)
        if stamp is not None:
            getattr(message, field).CopyFrom(stamp)
    return message


def progress(value: Deployment) -> deployment_pb2.RolloutProgress:
    """How far the rollout is."""
    rollout, attempt = value.rollout, value.status.attempt
    message = rollout.message or (attempt.message if attempt else "") or _waiting(value)
    return _PB.RolloutProgress(
        state=_state(rollout.state),
        phase=_phase(rollout.phase),
        step=rollout.step,
        step_count=len(rollout.steps),
        percent=rollout.percent,
        start_time=to_timestamp(rollout.started_at),
        step_start_time=to_timestamp(rollout.step_started_at),
        end_time=to_timestamp(rollout.ended_at),
        trace_id=rollout.trace.trace_id,
        message=message,
        reason=rollout.reason or (attempt.reason if attempt else ""),
        next_attempt_time=to_timestamp(attempt.next_at) if attempt else None,
    )


def revision(name: DeploymentName, value: Revision) -> deployment_pb2.Revision:
    """An entry of the history."""
    return _PB.Revision(
        name=name.revision(value.number),
        declaration=from_spec(name, value.spec),
        author=value.author,
        message=value.message,
        source_commit=value.spec.source_commit,
        cause=_PB.RevisionCause.Value(f"REVISION_CAUSE_{value.cause.name}"),
        restored_revision=name.revision(value.restored) if value.restored is not None else "",
        create_time=to_timestamp(value.created_at),
        end_time=to_timestamp(value.ended_at),
        state=_state(value.state),
        state_message=value.state_message,
        trace_id=value.trace_id,
        steps=[_revision_step(step) for step in value.steps],
        generation=value.generation,
    )


def event(name: DeploymentName, value: Event) -> deployment_service_pb2.DeploymentEvent:
    """Something that happened."""
    kind = deployment_service_pb2.DeploymentEventType.Value(f"DEPLOYMENT_EVENT_TYPE_{value.type.name}")
    return deployment_service_pb2.DeploymentEvent(
        type=kind,
        message=value.message,
        event_time=to_timestamp(value.at),
        revision=name.revision(value.revision),
        phase=_phase(value.phase),
        subject=value.subject,
        traffic=from_shares(value.shares),
    )


def plan_response(name: DeploymentName, value: Preview) -> deployment_service_pb2.PlanDeploymentResponse:
    """What applying would do."""
    return deployment_service_pb2.PlanDeploymentResponse(
        deployment=from_spec(name, value.spec),
        creates=value.creates,
        changes=[
            deployment_service_pb2.FieldChange(path=c.path, before=c.before, after=c.after)
            for c in value.changes
        ],
        actions=[_planned(action) for action in value.actions],
        etag=value.etag,
    )


def drift(
    name: DeploymentName, hops: Iterable[HopDrift], observed_at: float
) -> deployment_service_pb2.DeploymentDrift:
    """How each hop differs."""
    return deployment_service_pb2.DeploymentDrift(
        deployment=str(name),
        hops=[_hop(hop, observed_at) for hop in hops],
    )


def cluster(facts: ClusterFacts) -> cluster_service_pb2.Cluster:
    """A cluster with what it holds."""
    return cluster_service_pb2.Cluster(
        name=facts.name,
        display_name="this machine",
        local=cluster_service_pb2.LocalOperator(),
        capacity=cluster_service_pb2.Capacity(
            cpu=facts.cpu,
            memory_bytes=facts.memory_bytes,
            accelerators=facts.accelerators,
            replicas=facts.replicas,
        ),
        allocated=cluster_service_pb2.Capacity(
            cpu=facts.used_cpu,
            memory_bytes=facts.used_memory_bytes,
            accelerators=facts.used_accelerators,
            replicas=facts.used_replicas,
        ),
        replica_count=facts.used_replicas,
        conditions=[
            types_pb2.Condition(
                type="Ready",
                status=types_pb2.CONDITION_STATUS_TRUE,
                reason="LOCAL",
                message="replicas are processes of this machine",
            )
        ],
    )


def _hop(value: HopDrift, observed_at: float | None) -> deployment_pb2.HopDrift:
    return _PB.HopDrift(
        hop=_PB.Hop.Value(f"HOP_{value.hop.name}"),
        state=_PB.DriftState.Value(f"DRIFT_STATE_{value.state.name}"),
        differences=[
            _PB.Difference(path=d.path, declared=d.declared, actual=d.actual) for d in value.differences
        ],
        observe_time=to_timestamp(observed_at),
        message=value.message,
    )


def _waiting(value: Deployment) -> str:
    """What is waited for, when nothing has gone wrong: the first condition that does not hold yet."""
    if not value.rollout.active:
        return ""
    unmet = [c for c in value.status.conditions if c.status.value != "true" and c.type != "RolloutComplete"]
    return unmet[0].message if unmet else ""


def _versions(value: Deployment) -> list[deployment_pb2.ObservedVersion]:
    """Each version that runs or is meant to."""
    wanted: dict[str, int] = {}
    specs: dict[str, VersionSpec] = {}
    for group in wanted_groups(value.rollout):
        wanted[group.spec.version] = wanted.get(group.spec.version, 0) + group.count
        if group.target or group.spec.version not in specs:
            specs[group.spec.version] = group.spec
    running = {replica.version for replica in value.status.replicas}
    names = sorted(running | set(wanted) | value.status.shares.versions)
    return [
        _PB.ObservedVersion(
            version=name,
            package=from_pin(specs[name].package) if name in specs else None,
            desired_replicas=wanted.get(name, 0),
            ready_replicas=sum(r.ready for r in value.status.replicas if r.version == name),
            traffic_percent=value.status.shares[name] / 100,
            replicas=[_replica(value.name, r) for r in value.status.replicas if r.version == name],
        )
        for name in names
    ]


def _replica(name: DeploymentName, value: Replica) -> deployment_pb2.Replica:
    state = "READY" if value.ready else "STARTING" if value.state.value == "healthy" else value.state.name
    return _PB.Replica(
        name=name.replica(value.id),
        version=value.version,
        state=_PB.ReplicaState.Value(f"REPLICA_STATE_{state}"),
        message=value.message,
        grpc_address=value.grpc_address,
        http_address=value.http_address,
        cluster=value.cluster,
        restarts=value.restarts,
        start_time=to_timestamp(value.started_at),
        registered=value.registered,
        cluster_reference=value.reference,
    )


def _condition(value: Condition) -> types_pb2.Condition:
    return types_pb2.Condition(
        type=value.type,
        status=types_pb2.ConditionStatus.Value(f"CONDITION_STATUS_{value.status.name}"),
        reason=value.reason,
        message=value.message,
        last_transition_time=to_timestamp(value.since),
        observed_generation=value.generation,
    )


def _revision_step(value: RevisionStep) -> deployment_pb2.RevisionStep:
    return _PB.RevisionStep(
        phase=_phase(value.phase),
        message=value.message,
        start_time=to_timestamp(value.started_at),
        end_time=to_timestamp(value.ended_at),
        traffic=from_shares(value.shares),
        span_id=value.span_id,
        author=value.author,
    )


def _planned(value: PlannedAction) -> deployment_service_pb2.PlannedAction:
    return deployment_service_pb2.PlannedAction(
        phase=_phase(value.phase),
        kind=value.kind,
        subject=value.subject,
        description=value.description,
        traffic=from_shares(value.shares),
    )


def _state(value: RolloutState) -> deployment_pb2.RolloutState.ValueType:
    return _PB.RolloutState.Value(f"ROLLOUT_STATE_{value.name}")


def _phase(value: Phase) -> deployment_pb2.RolloutPhase.ValueType:
    return _PB.RolloutPhase.Value(f"ROLLOUT_PHASE_{value.name}")
