"""What every StateStore and HistoryStore keeps, whichever backend it is."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from chassis import errors
from dplo.adapters.memory import MemoryStore
from dplo.adapters.sql.store import SqlStore, open_engine
from dplo.app.events import Event, EventType
from dplo.app.notices import Notices
from dplo.app.ports import Change
from dplo.app.watch import watch
from dplo.domain.deployment import Cause, Deployment, Revision, RevisionStep, begin
from dplo.domain.names import DeploymentName
from dplo.domain.rollout import Phase, RolloutState, TraceReference
from dplo.domain.spec import (
    Accelerator,
    Gate,
    PackagePin,
    Resources,
    ServerOptions,
    Spec,
    Step,
    Strategy,
    VersionSpec,
)
from dplo.domain.traffic import Shares

NAME = DeploymentName("digits", "classifier")
Store = SqlStore | MemoryStore
KILLED_WHILE_MIGRATING = """
import asyncio, os, signal, sys
from pathlib import Path
from dplo.adapters.sql.store import SqlStore, open_engine
from sqlalchemy import event

engine = open_engine(Path(sys.argv[1]))

@event.listens_for(engine.sync_engine, "after_cursor_execute")
def executed(connection, cursor, statement, *_):
    if statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(SqlStore(engine).__aenter__())
"""


@pytest.fixture(params=["memory", "sql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with SqlStore(open_engine(tmp_path / "state" / "dplo.db")) as opened:
            yield opened


def deployment(name: DeploymentName = NAME) -> Deployment:
    model = f"projects/{name.project}/models/{name.deployment}"
    version = VersionSpec(
        "1",
        PackagePin(f"{model}/packages/1", "sha256:" + "a" * 64),
        2,
        resources=Resources(0.5, 1 << 30, Accelerator("nvidia-gpu", 1)),
        environment=(("A", "b"),),
        server=ServerOptions(8, 0.005, 100, 2, 10.0),
    )
    strategy = Strategy((Step(10, 60.0, True),), Gate(0.1, 99.0, 0.25, None, 10))
    spec = Spec(model, (version,), Shares.percent({"1": 100}), strategy, policy=b"\x00\xff\xfe")
    trace = TraceReference("a" * 32, "b" * 16, "", "c" * 16, True)
    return begin(None, name, spec, uid="u" * 32, now=1.5, cause=Cause.APPLY, trace=trace)


def revision(number: int, of: Deployment) -> Revision:
    step = RevisionStep(Phase.SHIFT, "routed", 2.0, None, Shares.percent({"1": 100}), "d" * 16, "ada")
    return Revision(number, number, of.spec, Cause.APPLY, "ada", "why", 1.0, steps=(step,))


def event(text: str) -> Event:
    return Event(EventType.TRAFFIC_SHIFTED, text, 3.0, 1, Phase.SHIFT, "x", Shares.percent({"1": 100}))


async def test_what_was_written_is_read(store: Store) -> None:
    value = deployment()
    written = await store.write(Change(value, (revision(1, value),), (event("first"),)))
    assert written == replace(value, row=1)
    assert await store.read(NAME) == written
    assert await store.find_model(value.spec.model) == written
    assert await store.revision(NAME, 1) == revision(1, value)
    (kept,) = await store.events(NAME, 0, 10)
    assert replace(kept, sequence=0) == event("first")


async def test_a_write_over_something_newer_is_refused_and_changes_nothing(store: Store) -> None:
    first = await store.write(Change(deployment()))
    await store.write(Change(replace(first, generation=2)))
    with pytest.raises(errors.Aborted):
        await store.write(Change(replace(first, generation=3), (), (event("lost"),)))
    kept = await store.read(NAME)
    assert kept is not None
    assert (kept.generation, kept.row) == (2, 2)
    assert list(await store.events(NAME, 0, 10)) == []


async def test_making_what_exists_is_refused(store: Store) -> None:
    await store.write(Change(deployment()))
    with pytest.raises(errors.Aborted):
        await store.write(Change(deployment()))


async def test_writers_at_the_same_time_take_turns_and_one_wins_each_round(store: Store) -> None:
    await store.write(Change(deployment()))

    async def add() -> None:
        while True:
            present = await store.read(NAME)
            assert present is not None
            try:
                await store.write(Change(replace(present, generation=present.generation + 1)))
            except errors.Aborted:
                continue
            return

    await asyncio.gather(*(add() for _ in range(10)))
    kept = await store.read(NAME)
    assert kept is not None
    assert (kept.generation, kept.row) == (11, 11)


async def test_lists_are_in_order_by_project_and_in_pages(store: Store) -> None:
    for project, name in (("b", "y"), ("a", "z"), ("b", "x"), ("c", "w")):
        await store.write(Change(deployment(DeploymentName(project, name))))
    assert [str(d.name) for d in await store.list(None, "", 3)] == [
        "projects/a/deployments/z",
        "projects/b/deployments/x",
        "projects/b/deployments/y",
    ]
    assert [d.name.project for d in await store.list(None, "projects/b/deployments/y", 9)] == ["c"]
    assert [d.name.deployment for d in await store.list("b", "", 9)] == ["x", "y"]


async def test_history_is_newest_first_and_a_revision_is_replaced_by_its_number(store: Store) -> None:
    value = await store.write(Change(deployment(), (revision(1, deployment()), revision(2, deployment()))))
    ended = revision(1, value).ended(RolloutState.COMPLETE, "", 9.0)
    await store.write(Change(value, (ended, revision(3, value))))
    assert [r.number for r in await store.revisions(NAME, None, 9)] == [3, 2, 1]
    assert [r.number for r in await store.revisions(NAME, 3, 1)] == [2]
    assert await store.revision(NAME, 1) == ended
    assert await store.revision(NAME, 4) is None


async def test_events_are_told_after_a_sequence_number(store: Store) -> None:
    value = await store.write(Change(deployment(), (), (event("a"), event("b"))))
    await store.write(Change(value, (), (event("c"),)))
    everything = await store.events(NAME, 0, 10)
    assert [e.message for e in everything] == ["a", "b", "c"]
    assert [e.message for e in await store.events(NAME, everything[0].sequence, 1)] == ["b"]
    assert await store.event_range(NAME) == (everything[0].sequence, everything[-1].sequence)


async def test_what_is_removed_leaves_nothing_and_can_be_made_anew(store: Store) -> None:
    value = await store.write(Change(deployment(), (revision(1, deployment()),), (event("a"),)))
    with pytest.raises(errors.Aborted):
        await store.remove(NAME, value.row - 1)
    await store.remove(NAME, value.row)
    assert await store.read(NAME) is None
    assert await store.revision(NAME, 1) is None
    assert await store.event_range(NAME) == (0, 0)
    await store.write(Change(deployment()))


async def test_a_watch_begins_with_how_it_is_goes_on_with_what_happens_and_can_be_resumed(
    store: Store,
) -> None:
    notices = Notices()
    value = await store.write(Change(deployment(), (), (event("before"),)))
    sightings = watch(store, store, notices, NAME, None)
    first = await anext(sightings)
    assert (first.event, first.deployment) == (None, value)
    waiting = asyncio.ensure_future(anext(sightings))
    value = await store.write(Change(value, (), (event("then"), event("and then"))))
    await notices.tell(NAME)
    second = await waiting
    assert second.event is not None
    assert second.event.message == "then"
    resumed = watch(store, store, notices, NAME, second.sequence)
    third = await anext(resumed)
    assert third.event is not None
    assert third.event.message == "and then"
    with pytest.raises(errors.OutOfRange):
        await anext(watch(store, store, notices, NAME, 10_000))
    await store.remove(NAME, value.row)
    await notices.tell(NAME)
    last = await anext(resumed)
    assert last.event is not None
    assert (last.event.type, last.deployment) == (EventType.DELETED, None)
    with pytest.raises(StopAsyncIteration):
        await anext(resumed)


async def test_old_events_are_forgotten_in_the_database(tmp_path: Path) -> None:
    async with SqlStore(open_engine(tmp_path / "dplo.db"), events_kept=50) as store:
        value = await store.write(Change(deployment()))
        for _ in range(4):
            value = await store.write(Change(value, (), tuple(event("e") for _ in range(30))))
        oldest, newest = await store.event_range(NAME)
        assert newest == 120
        assert 49 <= newest - oldest < 60


async def test_a_database_is_kept_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "dplo.db"
    for _ in range(2):
        async with SqlStore(open_engine(path)) as store:
            if await store.read(NAME) is None:
                await store.write(Change(deployment()))
    async with SqlStore(open_engine(path)) as store:
        assert await store.read(NAME) is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [("0001",)]
    connection.close()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE alembic_version", "CREATE TABLE deployments", "INSERT INTO alembic"]
)
async def test_a_start_that_was_killed_while_it_made_the_tables_hinders_no_other(
    tmp_path: Path, statement: str
) -> None:
    path = str(tmp_path / "dplo.db")
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_WHILE_MIGRATING, path, statement
    )
    assert await first.wait() == -signal.SIGKILL
    async with SqlStore(open_engine(tmp_path / "dplo.db")) as store:
        await store.write(Change(deployment()))
        assert await store.read(NAME) is not None


async def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from dplo.adapters.sql.tables import schema

    engine = open_engine(tmp_path / "dplo.db")
    async with SqlStore(engine):
        async with engine.connect() as connection:
            found = await connection.run_sync(
                lambda c: compare_metadata(MigrationContext.configure(c), schema)
            )
        assert found == []


async def test_a_file_that_is_no_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "dplo.db"
    path.write_text("not a database, and long enough to be looked at" * 10)
    with pytest.raises(errors.Unavailable, match="file is not a database"):
        async with SqlStore(open_engine(path)):
            pass
