"""Looks at the world: cluster, route provider, gateway and cache, each allowed to be away."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from chassis import errors
from chassis.clock import Clock

from dplo.app.ports import ClusterOperator, EndpointObserver, Gateway, PackageSource
from dplo.domain.deployment import Deployment
from dplo.domain.gate import TrafficSample
from dplo.domain.observed import Observed, Replica, RouteView
from dplo.domain.plan import needs_samples
from dplo.domain.spec import DEFAULT_GATE_WINDOW


@dataclass(frozen=True, slots=True)
class World:
    """The ports that are looked at and acted on. `clusters` by resource name."""

    packages: PackageSource
    clusters: Mapping[str, ClusterOperator]
    gateway: Gateway
    endpoints: EndpointObserver


async def observe(world: World, deployment: Deployment, clock: Clock) -> Observed:
    """What there is of a deployment now."""
    (replicas, cluster_error), (route, registered, gateway_error) = await asyncio.gather(
        _replicas(world, deployment), _gateway(world, deployment)
    )
    samples, samples_error = await _samples(world, deployment, clock)
    if replicas is not None:
        replicas = tuple(replace(r, registered=r.id in registered) for r in replicas)
    return Observed(
        now=clock.time(),
        replicas=replicas,
        cached=world.packages.cached(),
        route=route,
        gateway_error=gateway_error,
        cluster_error=cluster_error,
        samples=samples,
        samples_error=samples_error,
        endpoints=tuple(sorted(registered)),
    )


async def _replicas(world: World, deployment: Deployment) -> tuple[tuple[Replica, ...] | None, str]:
    found: list[Replica] = []
    for operator in world.clusters.values():
        try:
            found += await operator.observe(deployment.name)
        except errors.Error as error:
            return None, error.message
    return tuple(sorted(found, key=lambda r: r.id)), ""


async def _gateway(world: World, deployment: Deployment) -> tuple[RouteView | None, frozenset[str], str]:
    try:
        route = await world.gateway.read_route(deployment.model)
        return route, await world.endpoints.registered(deployment.model), ""
    except errors.Error as error:
        return None, frozenset(), error.message


async def _samples(
    world: World, deployment: Deployment, clock: Clock
) -> tuple[Mapping[str, TrafficSample] | None, str]:
    rollout = deployment.rollout
    if not needs_samples(rollout):
        return None, ""
    gate = rollout.target.strategy.gate
    window = gate.window if gate else DEFAULT_GATE_WINDOW
    since = max(clock.time() - window, rollout.step_started_at or 0.0)
    try:
        return await world.gateway.sample(deployment.model, since), ""
    except errors.Error as error:
        return None, f"the gateway cannot say what it measured: {error.message}"
