"""The route table: an immutable snapshot of what answers what, built off the request path and swapped
whole.

Picking is O(1) and allocates nothing: a step along a precomputed cycle of versions, then a step around the
ring of ready replicas. The steps are the only state, and are carried over when a model's entry is rebuilt.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from aigw.domain import failures
from aigw.domain.health import Replica
from aigw.domain.retry import RetryBudget
from aigw.domain.route import Route, RoutePolicy, Target
from aigw.domain.schedule import cycle


class Face(IntEnum):
    """The protocol of a call; a replica may serve one and not the other."""

    GRPC = 0
    REST = 1


class Ring:
    """The replicas of one version on one face, taken in turn. May be empty."""

    __slots__ = ("position", "replicas", "version")

    def __init__(self, version: str, replicas: tuple[Replica, ...], position: int = 0) -> None:
        self.version = version
        self.replicas = replicas
        self.position = position

    def next(self) -> Replica | None:
        """The replica whose turn it is."""
        replicas = self.replicas
        index = self.position
        if index >= len(replicas):
            if not replicas:
                return None
            index = 0
        self.position = index + 1
        return replicas[index]

    def other(self, tried: Iterable[Replica]) -> Replica | None:
        """The next replica that is not among the tried ones; None if there is none."""
        excluded = set(map(id, tried))
        for _ in self.replicas:
            replica = self.next()
            if replica is not None and id(replica) not in excluded:
                return replica
        return None


class FaceTable:
    """One model on one face: its rings by version, and the cycle of rings that weights make."""

    __slots__ = ("_length", "cycle", "position", "probe_position", "rings")

    def __init__(
        self, rings: Mapping[str, Ring], turns: tuple[Ring, ...], position: int = 0, probe_position: int = 0
    ) -> None:
        self.rings = rings
        self.cycle = turns
        self._length = len(turns)
        self.position = position
        self.probe_position = probe_position

    def pick(self) -> Ring | None:
        """The version whose turn it is; None if no weighted version can answer."""
        index = self.position
        if index >= self._length:
            if not self._length:
                return None
            index = 0
        self.position = index + 1
        return self.cycle[index]

    def pick_probe(self) -> Ring | None:
        """The same for calls beside inference (metadata, readiness), which must not shift the split of
        inference.
        """
        index = self.probe_position
        if index >= self._length:
            if not self._length:
                return None
            index = 0
        self.probe_position = index + 1
        return self.cycle[index]

    def share(self, version: str) -> float:
        """Part of the turns that the version has."""
        return sum(ring.version == version for ring in self.cycle) / self._length if self._length else 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What can be said of one version: counts of its endpoints and its share of calls without a version."""

    version: str
    weight: int
    ready: int
    draining: int
    ejected: int
    share: float


class ModelEntry:
    """All that a call to one model needs, found by one look-up."""

    __slots__ = ("budget", "faces", "key", "policy", "replicas", "retry_codes", "route")

    def __init__(
        self,
        route: Route,
        policy: RoutePolicy,
        faces: tuple[FaceTable, FaceTable],
        replicas: tuple[Replica, ...],
        budget: RetryBudget,
    ) -> None:
        self.route = route
        self.key = route.key
        self.policy = policy
        self.retry_codes = frozenset(policy.retry.codes)
        self.faces = faces
        self.replicas = replicas
        self.budget = budget

    def ring(self, face: Face, version: str) -> Ring:
        """The ring of a version that was asked for by name; NotFound lists the right ones."""
        ring = self.faces[face].rings.get(version)
        if ring is None:
            raise failures.unknown_version(self.key, version, sorted(self.faces[face].rings))
        return ring

    def observe(self) -> list[Observed]:
        """What can be said of each version, by version."""
        weights = {target.version: target.weight for target in self.route.targets}
        grpc = self.faces[Face.GRPC]
        found = []
        for version in sorted(grpc.rings):
            of_version = [replica for replica in self.replicas if replica.version == version]
            found.append(
                Observed(
                    version=version,
                    weight=weights.get(version, 0),
                    ready=sum(not r.draining and not r.ejected for r in of_version),
                    draining=sum(r.draining for r in of_version),
                    ejected=sum(r.ejected and not r.draining for r in of_version),
                    share=grpc.share(version) if grpc.rings[version].replicas else 0.0,
                )
            )
        return found


class RouteTable:
    """All models. Immutable: a change makes a new table that shares the entries it does not touch."""

    __slots__ = ("_entries", "find")

    def __init__(self, entries: Mapping[str, ModelEntry] | None = None) -> None:
        own = dict(entries or {})
        for key, entry in own.items():
            _check_entry(key, entry)
        self._entries = own
        self.find = own.get
        """Entry of `project/model`, or None. A bound method of the dictionary: the hot path calls it
        directly.
        """

    @property
    def entries(self) -> Mapping[str, ModelEntry]:
        """All entries, read-only."""
        return MappingProxyType(self._entries)

    def with_entry(self, entry: ModelEntry) -> "RouteTable":
        """The table with one model's entry replaced or added."""
        return self._with({**self._entries, entry.key: entry}, (entry,))

    def without(self, key: str) -> "RouteTable":
        """The table without one model."""
        return self._with({k: e for k, e in self._entries.items() if k != key}, ())

    @staticmethod
    def _with(entries: dict[str, ModelEntry], changed: Iterable[ModelEntry]) -> "RouteTable":
        for entry in changed:
            _check_entry(entry.key, entry)
        table = RouteTable()
        table._entries = entries
        table.find = entries.get
        return table


def _check_entry(key: str, entry: ModelEntry) -> None:
    """What must hold for picking to be right, whatever built the entry."""
    if entry.key != key:
        raise ValueError(f"entry of {entry.key} stands under {key}")
    for face in Face:
        table = entry.faces[face]
        for ring in table.cycle:
            if table.rings.get(ring.version) is not ring:
                raise ValueError(
                    f"{key}: the cycle has a ring of version {ring.version} that is not in the table"
                )
        for version, ring in table.rings.items():
            if any(replica.version != version for replica in ring.replicas):
                raise ValueError(f"{key}: the ring of version {version} has a replica of another version")


def build_entry(
    route: Route,
    policy: RoutePolicy,
    replicas: Iterable[Replica],
    budget: RetryBudget,
    previous: ModelEntry | None = None,
) -> ModelEntry:
    """The entry of one model, carrying over the steps of the one before.

    `policy` is the effective one. Draining replicas are left out, ejected ones too unless a version has no
    others.
    """
    own = tuple(replicas)
    faces = tuple(_build_face(face, route, policy, own, previous) for face in Face)
    return ModelEntry(route, policy, (faces[0], faces[1]), own, budget)


def _build_face(
    face: Face, route: Route, policy: RoutePolicy, replicas: tuple[Replica, ...], previous: ModelEntry | None
) -> FaceTable:
    targets = {target.version: target for target in route.targets}
    before = previous.faces[face] if previous is not None else None
    rings = {}
    unready = set()
    for version in sorted({*targets, *(replica.version for replica in replicas)}):
        usable, ready = _usable(face, targets.get(version), version, replicas)
        old = before.rings.get(version) if before is not None else None
        rings[version] = Ring(version, usable, old.position if old is not None else 0)
        if not ready:
            unready.add(version)
    weighted = _weighted(route.targets, rings, unready, divert=policy.divert_unready)
    turns = tuple(weighted[index][0] for index in cycle(tuple(weight for _, weight in weighted)))
    if before is None:
        return FaceTable(rings, turns)
    return FaceTable(
        rings,
        turns,
        _carry(before.position, len(before.cycle), len(turns)),
        _carry(before.probe_position, len(before.cycle), len(turns)),
    )


def _usable(
    face: Face, target: Target | None, version: str, replicas: tuple[Replica, ...]
) -> tuple[tuple[Replica, ...], bool]:
    """The replicas to use for a version, and whether it counts as ready.

    Healthy ones; if all are put aside, those that at least answer; if none does, all of them, but then the
    version is not ready and its share goes to others if the route allows.
    """
    candidates = [
        replica
        for replica in replicas
        if replica.version == version
        and not replica.draining
        and (face is Face.GRPC or replica.http is not None)
        and (target is None or target.accepts(replica.labels))
    ]
    healthy = tuple(replica for replica in candidates if not replica.ejected)
    if healthy:
        return healthy, True
    answering = tuple(replica for replica in candidates if not replica.unreachable)
    if answering:
        return answering, True
    return tuple(candidates), False


def _weighted(
    targets: tuple[Target, ...], rings: Mapping[str, Ring], unready: set[str], *, divert: bool
) -> list[tuple[Ring, int]]:
    weighted = [(rings[target.version], target.weight) for target in targets if target.weight > 0]
    if not divert:
        return weighted
    ready = [(ring, weight) for ring, weight in weighted if ring.version not in unready]
    if ready:
        return ready
    # Nothing is ready: those with unreachable replicas are still worth an attempt.
    return [(ring, weight) for ring, weight in weighted if ring.replicas]


def _carry(position: int, old_length: int, new_length: int) -> int:
    """The place in the new cycle that is as far along as the old one was."""
    if old_length == new_length or not old_length:
        return position
    return position * new_length // old_length
