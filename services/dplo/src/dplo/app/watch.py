"""Watching a deployment: how it is, then each thing that happens, with a token to go on from."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from chassis import errors

from dplo.app.events import Event, EventType
from dplo.app.notices import Notices
from dplo.app.ports import HistoryStore, StateStore
from dplo.domain.deployment import Deployment
from dplo.domain.names import DeploymentName

_BATCH = 100


@dataclass(frozen=True, slots=True)
class Sighting:
    """One response of a watch. `event` is None in the snapshot; `deployment` None once it is gone."""

    sequence: int
    event: Event | None
    deployment: Deployment | None


async def watch(
    store: StateStore, history: HistoryStore, notices: Notices, name: DeploymentName, after: int | None
) -> AsyncIterator[Sighting]:
    """Follows a deployment until it is gone. `after` is the sequence number to go on from."""
    seen = notices.count(name)
    deployment = await store.read(name)
    if deployment is None:
        raise errors.NotFound(
            f"{name} does not exist", reason="DEPLOYMENT_NOT_FOUND", metadata={"deployment": str(name)}
        )
    oldest, newest = await history.event_range(name)
    if after is None:
        sequence = newest
        yield Sighting(sequence, None, deployment)
    else:
        if after > newest or (newest and after < oldest - 1):
            raise errors.OutOfRange(
                f"resume token {after} is not among the events kept, {oldest} to {newest}; watch without one",
                reason="RESUME_TOKEN_GONE",
                metadata={"oldest": str(oldest), "newest": str(newest)},
            )
        sequence = after
    while True:
        while batch := await history.events(name, sequence, _BATCH):
            deployment = await store.read(name) or deployment
            for event in batch:
                sequence = event.sequence
                yield Sighting(sequence, event, deployment)
        present = await store.read(name)
        if present is None:
            yield Sighting(sequence, _deleted(deployment), None)
            return
        deployment = present
        seen = await notices.wait(name, seen)


def _deleted(last: Deployment) -> Event:
    """The last event, which cannot be stored with what it says is gone."""
    rollout = last.rollout
    return Event(EventType.DELETED, f"{last.name} is gone", last.updated_at, rollout.revision, rollout.phase)
