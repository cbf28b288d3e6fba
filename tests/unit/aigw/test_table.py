"""Picking from the table: exact, fair, O(1), without allocation, and steady over swaps."""

import sys
import tracemalloc
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from aigw.domain import table
from aigw.domain.endpoint import Endpoint
from aigw.domain.health import Failure, Replica
from aigw.domain.retry import RetryBudget
from aigw.domain.route import DEFAULT_POLICY, Route, RoutePolicy, Target
from aigw.domain.table import Face, FaceTable, ModelEntry, Ring, RouteTable, build_entry
from hypothesis import given
from hypothesis import strategies as st


def _replica(name: str, version: str, *, http: bool = True, labels: dict[str, str] | None = None) -> Replica:
    endpoint = Endpoint("p", "m", name, version, "h:1", "h:2" if http else "", labels=labels or {})
    return Replica(endpoint, "lease", object(), object() if http else None)  # type: ignore[arg-type]


def _entry(
    weights: dict[str, int],
    replicas: list[Replica],
    *,
    previous: ModelEntry | None = None,
    divert: bool = True,
    labels: dict[str, str] | None = None,
) -> ModelEntry:
    targets = tuple(Target(version, weight, labels or {}) for version, weight in weights.items())
    policy = RoutePolicy(
        DEFAULT_POLICY.timeout, DEFAULT_POLICY.retry, DEFAULT_POLICY.ejection, divert_unready=divert
    )
    return build_entry(Route("p", "m", targets), policy, replicas, RetryBudget(20, 10, 0.0), previous)


def _versions(entry: ModelEntry, count: int, face: Face = Face.GRPC) -> list[str]:
    picked = [entry.faces[face].pick() for _ in range(count)]
    return [ring.version for ring in picked if ring is not None]


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1))
def test_the_split_is_exact_over_a_cycle(weights: dict[str, int]) -> None:
    entry = _entry(weights, [_replica(v, v) for v in weights])
    length = len(entry.faces[Face.GRPC].cycle)
    counted = Counter(_versions(entry, length * 3))
    total = sum(weights.values())
    assert counted == {v: 3 * length * w // total for v, w in weights.items() if w}


def test_replicas_of_a_version_take_turns() -> None:
    entry = _entry({"1": 1}, [_replica(name, "1") for name in "abc"])
    ring = entry.ring(Face.GRPC, "1")
    assert [ring.next().id for _ in range(7)] == list("abcabca")  # type: ignore[union-attr]


def test_a_named_version_is_found_whatever_its_weight_and_does_not_move_the_cycle() -> None:
    entry = _entry({"1": 1, "2": 1}, [_replica("a", "1"), _replica("b", "2"), _replica("c", "3")])
    before = _versions(entry, 1)
    assert entry.ring(Face.GRPC, "3").next().id == "c"  # type: ignore[union-attr]
    assert before + _versions(entry, 3) == ["1", "2", "1", "2"]


def test_probes_have_their_own_turn() -> None:
    entry = _entry({"1": 1, "2": 1}, [_replica("a", "1"), _replica("b", "2")])
    face = entry.faces[Face.GRPC]
    order = []
    for _ in range(4):  # a caller that asks for metadata before each inference
        face.pick_probe()
        order.append(face.pick().version)  # type: ignore[union-attr]
    assert order == ["1", "2", "1", "2"]


def _steps(entry: ModelEntry) -> int:
    """Lines executed by one pick of a version and a replica."""
    count = 0

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: local if frame.f_code.co_filename == table.__file__ else None)
    try:
        ring = entry.faces[Face.GRPC].pick()
        assert ring is not None
        ring.next()
    finally:
        sys.settrace(before)
    return count


def test_a_pick_takes_as_many_steps_with_64_versions_as_with_2() -> None:
    few = _entry({str(n): n + 1 for n in range(2)}, [_replica(f"{n}", f"{n}") for n in range(2)])
    many = _entry(
        {str(n): 1000 + n for n in range(64)},
        [_replica(f"{n}-{r}", f"{n}") for n in range(64) for r in range(9)],
    )
    # A turn of the index back to the start costs a few steps more, so the longest of many picks counts.
    assert max(_steps(many) for _ in range(200)) <= max(_steps(few) for _ in range(20)) < 20


def test_picking_allocates_nothing() -> None:
    entry = _entry({"1": 9, "2": 1}, [_replica("a", "1"), _replica("b", "1"), _replica("c", "2")])
    face = entry.faces[Face.GRPC]
    for _ in range(100):
        face.pick().next()  # type: ignore[union-attr]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            face.pick().next()  # type: ignore[union-attr]
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500
    assert peak - before < 2000


def test_draining_replicas_are_not_picked() -> None:
    leaving = _replica("b", "1")
    leaving.draining = True
    ring = _entry({"1": 1}, [_replica("a", "1"), leaving]).ring(Face.GRPC, "1")
    assert [replica.id for replica in ring.replicas] == ["a"]


def test_ejected_replicas_are_passed_over_while_others_are_healthy() -> None:
    bad = _replica("b", "1")
    bad.failed(Failure.UNREACHABLE, DEFAULT_POLICY.ejection, 0.0)
    ring = _entry({"1": 1}, [_replica("a", "1"), bad]).ring(Face.GRPC, "1")
    assert [replica.id for replica in ring.replicas] == ["a"]


def test_if_all_replicas_are_ejected_those_that_answer_are_used() -> None:
    faulty, dead = _replica("a", "1"), _replica("b", "1")
    for _ in range(5):
        faulty.failed(Failure.FAULT, DEFAULT_POLICY.ejection, 0.0)
    dead.failed(Failure.UNREACHABLE, DEFAULT_POLICY.ejection, 0.0)
    ring = _entry({"1": 1}, [faulty, dead]).ring(Face.GRPC, "1")
    assert [replica.id for replica in ring.replicas] == ["a"]


def test_the_share_of_a_version_without_replicas_goes_to_the_others() -> None:
    entry = _entry({"1": 1, "2": 9}, [_replica("a", "1")])
    assert set(_versions(entry, 20)) == {"1"}
    assert [(seen.version, seen.share) for seen in entry.observe()] == [("1", 1.0), ("2", 0.0)]


def test_the_share_of_a_version_whose_replicas_are_all_dead_goes_to_the_others() -> None:
    dead = _replica("b", "2")
    dead.failed(Failure.UNREACHABLE, DEFAULT_POLICY.ejection, 0.0)
    assert set(_versions(_entry({"1": 1, "2": 1}, [_replica("a", "1"), dead]), 10)) == {"1"}


def test_a_route_may_forbid_that_shares_are_diverted() -> None:
    entry = _entry({"1": 1, "2": 1}, [_replica("a", "1")], divert=False)
    assert _versions(entry, 4) == ["1", "2", "1", "2"]
    assert entry.ring(Face.GRPC, "2").next() is None


def test_without_any_replica_there_is_nothing_to_pick() -> None:
    assert _entry({"1": 1}, []).faces[Face.GRPC].pick() is None


def test_replicas_without_an_http_address_serve_grpc_only() -> None:
    entry = _entry({"1": 1}, [_replica("a", "1", http=False), _replica("b", "1")])
    assert [r.id for r in entry.ring(Face.REST, "1").replicas] == ["b"]
    assert [r.id for r in entry.ring(Face.GRPC, "1").replicas] == ["a", "b"]


def test_labels_select_among_endpoints() -> None:
    replicas = [_replica("a", "1", labels={"gpu": "h200"}), _replica("b", "1", labels={"gpu": "none"})]
    ring = _entry({"1": 1}, replicas, labels={"gpu": "h200"}).ring(Face.GRPC, "1")
    assert [replica.id for replica in ring.replicas] == ["a"]


def test_an_unchanged_entry_goes_on_where_it_was() -> None:
    replicas = [_replica("a", "1"), _replica("b", "1"), _replica("c", "2")]
    first = _entry({"1": 2, "2": 1}, replicas)
    begun = _versions(first, 2)
    second = _entry({"1": 2, "2": 1}, replicas, previous=first)
    assert begun + _versions(second, 4) == _versions(_entry({"1": 2, "2": 1}, replicas), 6)


def test_swaps_at_every_call_keep_the_split() -> None:
    replicas = [_replica("a", "1"), _replica("b", "2")]
    entry, counted = _entry({"1": 9, "2": 1}, replicas), Counter[str]()
    for number in range(1000):
        more = [*replicas, _replica("x", "1")] if number % 2 else replicas
        entry = _entry({"1": 9, "2": 1}, more, previous=entry)
        counted.update(_versions(entry, 1))
    assert counted == {"1": 900, "2": 100}


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 60))
def test_a_swap_of_weights_keeps_the_place_in_the_cycle(old: int, new: int, calls: int) -> None:
    replicas = [_replica("a", "1"), _replica("b", "2")]
    first = _entry({"1": old, "2": 1}, replicas)
    _versions(first, calls)
    second = _entry({"1": new, "2": 1}, replicas, previous=first)
    before, after = first.faces[Face.GRPC], second.faces[Face.GRPC]
    assert abs(before.position / len(before.cycle) - after.position / len(after.cycle)) <= 1 / len(
        after.cycle
    )


def test_a_table_shares_what_a_change_does_not_touch_and_leaves_the_old_one_alone() -> None:
    entry = _entry({"1": 1}, [_replica("a", "1")])
    full = RouteTable().with_entry(entry)
    emptied = full.without("p/m")
    assert full.find("p/m") is entry
    assert emptied.find("p/m") is None


@pytest.mark.parametrize("broken", ["key", "cycle", "ring"])
def test_an_inconsistent_table_cannot_be_built(broken: str) -> None:
    entry = _entry({"1": 1}, [_replica("a", "1")])
    good = entry.faces[Face.REST]
    if broken == "cycle":
        stray = FaceTable(good.rings, (Ring("1", ()),))
        entry = ModelEntry(entry.route, entry.policy, (stray, good), entry.replicas, entry.budget)
    if broken == "ring":
        rings = {"1": Ring("1", (_replica("b", "2"),))}
        wrong = FaceTable(rings, (rings["1"],))
        entry = ModelEntry(entry.route, entry.policy, (wrong, good), entry.replicas, entry.budget)
    with pytest.raises(ValueError, match="p/m"):
        RouteTable({"other" if broken == "key" else "p/m": entry})
