"""What a declaration must keep beyond the shape of its fields, and what this version does not execute.

A feature of the contract that is not executed is refused with its field named, never ignored.
"""

import itertools
from collections.abc import Collection, Sequence

from chassis.errors import FieldViolation

from dplo.domain.names import DeploymentName, ModelName
from dplo.domain.spec import DEFAULT_CLUSTER, Spec

NOT_AVAILABLE = "NOT_AVAILABLE"
LATENCY_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


def check(name: DeploymentName, spec: Spec, clusters: frozenset[str]) -> tuple[FieldViolation, ...]:
    """Every violation, with its field. `clusters` are the names of those that can be used."""
    return (
        *_check_names(name, spec),
        *_check_versions(spec, clusters),
        *_check_traffic(spec),
        *_check_steps(spec),
        *_check_gate(spec),
        *_check_unavailable(spec),
    )


def _check_names(name: DeploymentName, spec: Spec) -> list[FieldViolation]:
    project = ModelName.parse(spec.model).project
    if project == name.project:
        return []
    text = f"'{spec.model}' is of project '{project}', not of '{name.project}' as the deployment"
    return [FieldViolation("model", text, "PROJECT_DIFFERS")]


def _check_versions(spec: Spec, clusters: frozenset[str]) -> list[FieldViolation]:
    found: list[FieldViolation] = []
    seen: dict[str, int] = {}
    for index, version in enumerate(spec.versions):
        path = f"versions[{index}]"
        if version.version in seen:
            text = f"version '{version.version}' is declared already as versions[{seen[version.version]}]"
            found.append(FieldViolation(f"{path}.version", text, "DUPLICATE"))
        seen.setdefault(version.version, index)
        if version.package.model != spec.model:
            text = (
                f"'{version.package.name}' is a package of '{version.package.model}', not of '{spec.model}'"
            )
            found.append(FieldViolation(f"{path}.package.package", text, "MODEL_DIFFERS"))
        elif version.version != version.package.version:
            text = (
                f"'{version.version}' is not the version of the package, '{version.package.version}'; "
                "leave it out or write the same"
            )
            found.append(FieldViolation(f"{path}.version", text, "VERSION_DIFFERS"))
        if version.cluster not in clusters:
            known = ", ".join(sorted(clusters)) or DEFAULT_CLUSTER
            text = f"'{version.cluster}' is not available in this version of Penstock; available: {known}"
            found.append(FieldViolation(f"{path}.cluster", text, NOT_AVAILABLE))
    return found


def check_targets(
    targets: Sequence[tuple[str, int]], declared: Collection[str]
) -> tuple[FieldViolation, ...]:
    """The traffic targets as they were written: each version once, and each declared."""
    found: list[FieldViolation] = []
    seen: dict[str, int] = {}
    for index, (version, _) in enumerate(targets):
        if version not in declared:
            known = ", ".join(sorted(declared))
            text = f"'{version}' is not among the declared versions ({known})"
            found.append(FieldViolation(f"traffic[{index}].version", text, "UNKNOWN_VERSION"))
        if version in seen:
            text = f"version '{version}' is named already in traffic[{seen[version]}]"
            found.append(FieldViolation(f"traffic[{index}].version", text, "DUPLICATE"))
        seen.setdefault(version, index)
    return tuple(found)


def _check_traffic(spec: Spec) -> list[FieldViolation]:
    total = sum(part for _, part in spec.traffic.parts)
    if not spec.traffic:
        text = "must be given where there is more than one version: say the percent of each"
        return [FieldViolation("traffic", text, "REQUIRED")]
    if total != 10_000:
        text = f"the percents must add up to 100, they add up to {total / 100:g}"
        return [FieldViolation("traffic", text, "SUM")]
    return []


def _check_steps(spec: Spec) -> list[FieldViolation]:
    steps = spec.strategy.steps
    return [
        FieldViolation(
            f"rollout.steps[{index}].percent",
            f"{step.percent} does not rise above the step before it, {before.percent}",
            "NOT_RISING",
        )
        for index, (before, step) in enumerate(itertools.pairwise(steps), start=1)
        if step.percent <= before.percent
    ]


def _check_gate(spec: Spec) -> list[FieldViolation]:
    gate = spec.strategy.gate
    if gate is None:
        return []
    found = []
    if not spec.strategy.steps:
        text = "a gate needs steps to stand between; declare rollout.steps, for example [{percent: 10}]"
        found.append(FieldViolation("rollout.gate", text, "NO_STEPS"))
    if gate.max_shadow_disagreement is not None:
        found.append(_unavailable("rollout.gate.max_shadow_disagreement", "a gate on shadow disagreement"))
    elif gate.max_error_rate is None and gate.latency_percentile is None:
        text = "says no limit: declare max_error_rate or latency"
        found.append(FieldViolation("rollout.gate", text, "EMPTY"))
    if gate.latency_percentile is not None and gate.latency_percentile not in LATENCY_PERCENTILES:
        known = ", ".join(f"{p:g}" for p in LATENCY_PERCENTILES)
        text = f"the gateway measures the percentiles {known}, not {gate.latency_percentile:g}"
        found.append(FieldViolation("rollout.gate.latency.percentile", text, NOT_AVAILABLE))
    return found


def _check_unavailable(spec: Spec) -> list[FieldViolation]:
    found = []
    if spec.mirrors:
        found.append(_unavailable("mirrors", "mirroring"))
    if spec.image_build is not None:
        found.append(_unavailable("image_build", "building images"))
    if spec.strategy.max_surge is not None:
        found.append(_unavailable("rollout.max_surge", "a limit on the surge"))
    for index, version in enumerate(spec.versions):
        if version.server.max_batch_delay is not None:
            found.append(
                _unavailable(f"versions[{index}].server.max_batch_delay", "an operator's batch delay")
            )
        if version.server.max_queue_items:
            found.append(
                _unavailable(f"versions[{index}].server.max_queue_items", "an operator's queue limit")
            )
        accelerator = version.resources.accelerator
        if accelerator is not None and accelerator.kind != "nvidia-gpu":
            field = f"versions[{index}].resources.accelerator.kind"
            found.append(_unavailable(field, "an accelerator other than ACCELERATOR_KIND_NVIDIA_GPU"))
        if accelerator is not None and accelerator.product:
            field = f"versions[{index}].resources.accelerator.product"
            found.append(_unavailable(field, "choosing accelerators by product"))
    return found


def _unavailable(field: str, what: str) -> FieldViolation:
    return FieldViolation(
        field, f"{what} is not available in this version of Penstock; leave it out", NOT_AVAILABLE
    )
