"""Carries actions out. Thin: each action is one call of a port, and each can be done again."""

from dataclasses import dataclass

from chassis import errors

from dplo.app.observe import World
from dplo.app.ports import Placement
from dplo.app.retry import PermanentError, TemporaryError, classify
from dplo.domain.actions import Action, DeleteRoute, FetchPackage, PlaceReplica, PutRoute, StopReplica
from dplo.domain.deployment import Deployment
from dplo.domain.observed import RouteView


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action went."""

    action: Action
    failure: TemporaryError | PermanentError | None = None


async def execute(world: World, deployment: Deployment, action: Action, reason: str) -> Outcome:
    """Carries one action out; a failure is data."""
    try:
        await _execute(world, deployment, action, reason)
    except errors.Error as error:
        if isinstance(action, PutRoute | DeleteRoute) and isinstance(error, errors.FailedPrecondition):
            return Outcome(action, TemporaryError(error))
        return Outcome(action, classify(error))
    return Outcome(action)


async def _execute(world: World, deployment: Deployment, action: Action, reason: str) -> None:
    name, model = deployment.name, deployment.model
    match action:
        case FetchPackage(package):
            await world.packages.fetch(package)
        case PlaceReplica(replica, ordinal, version):
            operator = world.clusters[version.cluster]
            await operator.place(Placement(name, model, replica, ordinal, version))
        case PutRoute(shares, policy, etag, _):
            route = RouteView(shares.weights(), etag, policy, owner=str(name))
            await world.gateway.put_route(model, route, reason)
        case DeleteRoute(etag):
            await world.gateway.delete_route(model, etag)
        case StopReplica(replica, _, drain_timeout):
            for operator in world.clusters.values():
                await operator.stop(name, replica, drain_timeout)


def worst(outcomes: list[Outcome]) -> Outcome | None:
    """The failure that matters: a permanent one before a temporary one."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    permanent = [outcome for outcome in failed if isinstance(outcome.failure, PermanentError)]
    return next(iter(permanent or failed), None)
