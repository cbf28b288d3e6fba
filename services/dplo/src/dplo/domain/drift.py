"""How each hop differs from what is declared."""

import enum
from dataclasses import dataclass

from dplo.domain.observed import Observed
from dplo.domain.plan import wanted_groups
from dplo.domain.rollout import Rollout


class Hop(enum.StrEnum):
    """The hops of the chain."""

    GIT = "git"
    CLUSTER = "cluster"
    ROUTE_PROVIDER = "route_provider"
    GATEWAY = "gateway"


class DriftState(enum.StrEnum):
    """Whether a hop agrees."""

    IN_SYNC = "in_sync"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference."""

    path: str
    declared: str
    actual: str


@dataclass(frozen=True, slots=True)
class HopDrift:
    """What one hop says."""

    hop: Hop
    state: DriftState
    differences: tuple[Difference, ...] = ()
    message: str = ""


def find_drift(rollout: Rollout, seen: Observed) -> tuple[HopDrift, ...]:
    """One entry per hop. While a rollout lasts, what it wants at its present step is taken as declared."""
    return (
        HopDrift(
            Hop.GIT, DriftState.NOT_APPLICABLE, message="the deployment does not come from a Git source"
        ),
        _cluster(rollout, seen),
        _route_provider(seen),
        _gateway(rollout, seen),
    )


def _verdict(hop: Hop, differences: list[Difference]) -> HopDrift:
    state = DriftState.DRIFTED if differences else DriftState.IN_SYNC
    return HopDrift(hop, state, tuple(differences))


def _cluster(rollout: Rollout, seen: Observed) -> HopDrift:
    if seen.replicas is None:
        return HopDrift(Hop.CLUSTER, DriftState.UNKNOWN, message=seen.cluster_error)
    groups = {group.key: group for group in wanted_groups(rollout)}
    differences = []
    for key, group in groups.items():
        healthy = sum(r.group == key and r.state.value == "healthy" for r in seen.replicas)
        if healthy != group.count:
            path = f'versions["{group.spec.version}"].replicas'
            differences.append(Difference(path, str(group.count), f"{healthy} healthy"))
    differences += [
        Difference(f'replicas["{r.id}"]', "", f"{r.state.value}, version {r.version}")
        for r in seen.replicas
        if r.group not in groups
    ]
    return _verdict(Hop.CLUSTER, differences)


def _route_provider(seen: Observed) -> HopDrift:
    if not seen.gateway_known:
        return HopDrift(Hop.ROUTE_PROVIDER, DriftState.UNKNOWN, message=seen.gateway_error)
    known = {replica.id: replica for replica in seen.replicas or ()}
    differences = [
        Difference(f'replicas["{r.id}"]', "registered", "not registered")
        for r in known.values()
        if r.state.value == "healthy" and not r.registered
    ]
    differences += [
        Difference(f'endpoints["{endpoint}"]', "", "registered")
        for endpoint in seen.endpoints
        if endpoint not in known
    ]
    return _verdict(Hop.ROUTE_PROVIDER, differences)


def _gateway(rollout: Rollout, seen: Observed) -> HopDrift:
    if not seen.gateway_known:
        return HopDrift(Hop.GATEWAY, DriftState.UNKNOWN, message=seen.gateway_error)
    wanted = rollout.shares
    actual = seen.route.shares if seen.route else type(wanted)()
    versions = sorted({v for v, _ in wanted.parts} | {v for v, _ in actual.parts})
    differences = [
        Difference(f'traffic["{v}"].percent', f"{wanted[v] / 100:g}", f"{actual[v] / 100:g}")
        for v in versions
        if wanted[v] != actual[v]
    ]
    if seen.route is not None and rollout.step >= 0 and seen.route.policy != rollout.target.policy:
        differences.append(Difference("policy", "as declared", "another"))
    return _verdict(Hop.GATEWAY, differences)
