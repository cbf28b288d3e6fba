"""The declared part of a deployment: message ↔ value."""

from typing import Any

from penstock.aigw.v1 import route_pb2
from penstock.common.v1 import types_pb2
from penstock.dplo.v1 import deployment_pb2 as pb

from dplo.api.times import from_duration, to_duration
from dplo.domain.names import DeploymentName
from dplo.domain.spec import (
    DEFAULT_CLUSTER,
    DEFAULT_GATE_WINDOW,
    DEFAULT_READY_TIMEOUT,
    Accelerator,
    FailureAction,
    Gate,
    ImageBuild,
    Mirror,
    PackagePin,
    Resources,
    ServerOptions,
    Spec,
    Step,
    Strategy,
    VersionSpec,
)
from dplo.domain.traffic import Shares

_ACCELERATORS: dict[int, str] = {
    pb.ACCELERATOR_KIND_NVIDIA_GPU: "nvidia-gpu",
    pb.ACCELERATOR_KIND_AMD_GPU: "amd-gpu",
}
_ACCELERATOR_KINDS = {name: number for number, name in _ACCELERATORS.items()}


def targets_of(message: pb.Deployment) -> list[tuple[str, int]]:
    """The traffic targets as written."""
    return [(target.version, target.percent) for target in message.traffic]


def declared_versions(message: pb.Deployment) -> list[str]:
    """The versions that are declared, with those that default to their package's."""
    return [_version_name(version) for version in message.versions]


def to_spec(message: pb.Deployment) -> Spec:
    """The declaration as a value."""
    versions = tuple(_to_version(version) for version in message.versions)
    targets = dict(targets_of(message))
    if not targets and len(versions) == 1:
        targets = {versions[0].version: 100}
    return Spec(
        model=message.model,
        versions=versions,
        traffic=Shares.percent(targets),
        strategy=_to_strategy(message.rollout),
        mirrors=tuple(Mirror(m.version, m.percent) for m in message.mirrors),
        image_build=_to_image_build(message.image_build) if message.HasField("image_build") else None,
        policy=message.policy.SerializeToString(deterministic=True) if message.HasField("policy") else b"",
        display_name=message.display_name,
        description=message.description,
        labels=tuple(sorted(message.labels.items())),
        source_commit=message.source_commit,
    )


def from_spec(name: DeploymentName, spec: Spec) -> pb.Deployment:
    """The declared part of the message."""
    return pb.Deployment(
        name=str(name),
        display_name=spec.display_name,
        description=spec.description,
        labels=dict(spec.labels),
        model=spec.model,
        versions=[_from_version(version) for version in spec.versions],
        traffic=from_shares(spec.traffic),
        mirrors=[pb.MirrorTarget(version=m.version, percent=m.percent) for m in spec.mirrors],
        rollout=_from_strategy(spec.strategy),
        image_build=_from_image_build(spec.image_build) if spec.image_build is not None else None,
        policy=route_pb2.RoutePolicy.FromString(spec.policy) if spec.policy else None,
        source_commit=spec.source_commit,
    )


def from_shares(shares: Shares) -> list[pb.TrafficTarget]:
    """Shares in whole percents, as the contract tells them."""
    return [pb.TrafficTarget(version=version, percent=round(part / 100)) for version, part in shares.parts]


def from_pin(package: PackagePin) -> types_pb2.PackageReference:
    """A package reference."""
    return types_pb2.PackageReference(package=package.name, digest=package.digest)


def _version_name(message: pb.DeploymentVersion) -> str:
    return message.version or message.package.package.rpartition("/")[2]


def _to_version(message: pb.DeploymentVersion) -> VersionSpec:
    return VersionSpec(
        version=_version_name(message),
        package=PackagePin(message.package.package, message.package.digest),
        replicas=message.replicas if message.HasField("replicas") else 1,
        cluster=message.cluster or DEFAULT_CLUSTER,
        resources=_to_resources(message.resources),
        environment=tuple(sorted(message.environment.items())),
        server=_to_server(message.server),
        labels=tuple(sorted(message.labels.items())),
    )


def _from_version(version: VersionSpec) -> pb.DeploymentVersion:
    return pb.DeploymentVersion(
        version=version.version,
        package=from_pin(version.package),
        replicas=version.replicas,
        cluster=version.cluster,
        resources=_from_resources(version.resources) if version.resources != Resources() else None,
        environment=dict(version.environment),
        server=_from_server(version.server) if version.server != ServerOptions() else None,
        labels=dict(version.labels),
    )


def _to_resources(message: pb.Resources) -> Resources:
    accelerator = None
    if message.HasField("accelerator"):
        kind = _ACCELERATORS.get(message.accelerator.kind, "")
        accelerator = Accelerator(kind, message.accelerator.count, message.accelerator.product)
    return Resources(message.cpu, message.memory_bytes, accelerator)


def _from_resources(resources: Resources) -> pb.Resources:
    message = pb.Resources(cpu=resources.cpu, memory_bytes=resources.memory_bytes)
    accelerator = resources.accelerator
    if accelerator is not None:
        message.accelerator.kind = _ACCELERATOR_KINDS[accelerator.kind]  # type: ignore[assignment]  # stub wants its own enum type
        message.accelerator.count = accelerator.count
        message.accelerator.product = accelerator.product
    return message


def _to_server(message: pb.ServerOptions) -> ServerOptions:
    return ServerOptions(
        message.max_batch_items,
        _optional(message, "max_batch_delay"),
        message.max_queue_items,
        message.instances,
        _optional(message, "drain_timeout"),
    )


def _from_server(server: ServerOptions) -> pb.ServerOptions:
    return pb.ServerOptions(
        max_batch_items=server.max_batch_items,
        max_batch_delay=to_duration(server.max_batch_delay),
        max_queue_items=server.max_queue_items,
        instances=server.instances,
        drain_timeout=to_duration(server.drain_timeout),
    )


def _to_strategy(message: pb.RolloutStrategy) -> Strategy:
    pause = message.on_failure == pb.FAILURE_ACTION_PAUSE
    timeout = _optional(message, "ready_timeout")
    return Strategy(
        steps=tuple(
            Step(step.percent, from_duration(step.min_duration), step.manual_promotion)
            for step in message.steps
        ),
        gate=_to_gate(message.gate) if message.HasField("gate") else None,
        on_failure=FailureAction.PAUSE if pause else FailureAction.ROLLBACK,
        max_surge=message.max_surge if message.HasField("max_surge") else None,
        ready_timeout=DEFAULT_READY_TIMEOUT if timeout is None else timeout,
    )


def _from_strategy(strategy: Strategy) -> pb.RolloutStrategy:
    pause = strategy.on_failure is FailureAction.PAUSE
    return pb.RolloutStrategy(
        steps=[
            pb.RolloutStep(
                percent=step.percent,
                min_duration=to_duration(step.min_duration) if step.min_duration else None,
                manual_promotion=step.manual_promotion,
            )
            for step in strategy.steps
        ],
        gate=_from_gate(strategy.gate) if strategy.gate is not None else None,
        on_failure=pb.FAILURE_ACTION_PAUSE if pause else pb.FAILURE_ACTION_ROLLBACK,
        max_surge=strategy.max_surge,
        ready_timeout=to_duration(strategy.ready_timeout),
    )


def _to_gate(message: pb.RolloutGate) -> Gate:
    latency = message.latency if message.HasField("latency") else None
    window = _optional(message, "window")
    return Gate(
        max_error_rate=message.max_error_rate if message.HasField("max_error_rate") else None,
        latency_percentile=latency.percentile if latency else None,
        max_latency=from_duration(latency.max_latency) if latency else None,
        max_shadow_disagreement=(
            message.max_shadow_disagreement if message.HasField("max_shadow_disagreement") else None
        ),
        min_requests=message.min_requests or 1,
        window=DEFAULT_GATE_WINDOW if window is None else window,
    )


def _from_gate(gate: Gate) -> pb.RolloutGate:
    message = pb.RolloutGate(
        max_error_rate=gate.max_error_rate,
        max_shadow_disagreement=gate.max_shadow_disagreement,
        min_requests=gate.min_requests,
        window=to_duration(gate.window),
    )
    if gate.latency_percentile is not None:
        message.latency.percentile = gate.latency_percentile
        message.latency.max_latency.CopyFrom(to_duration(gate.max_latency or 0.0) or message.window)
    return message


def _to_image_build(message: pb.ImageBuild) -> ImageBuild:
    return ImageBuild(message.base_image, message.repository, tuple(message.platforms))


def _from_image_build(build: ImageBuild) -> pb.ImageBuild:
    return pb.ImageBuild(base_image=build.base_image, repository=build.repository, platforms=build.platforms)


def _optional(message: Any, field: str) -> float | None:
    """A duration that may be absent, in seconds."""
    return from_duration(getattr(message, field)) if message.HasField(field) else None
