"""What every operation store must do."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chassis import errors
from chassis.operations import (
    MemoryOperationStore,
    Operation,
    OperationFilter,
    Operations,
    OperationStore,
    Packed,
)
from chassis.operations.sql import SqlOperationStore

ALL = OperationFilter()


def operation(number: int, **changes: Any) -> Operation:
    first = Operation(f"operations/{number:02}", "Build", "me", 99.5, created=float(number), updated=0.0)
    return replace(first, **changes)


@contextlib.asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[OperationStore]:
    yield MemoryOperationStore()


@contextlib.asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[OperationStore]:
    async with SqlOperationStore.open(f"sqlite+aiosqlite:///{folder}/operations.db") as store:
        yield store


@pytest.fixture(params=[memory, sqlite], ids=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OperationStore]:
    async with request.param(tmp_path) as opened:
        yield opened


async def test_every_field_is_kept(store: OperationStore) -> None:
    full = operation(
        1,
        done=True,
        metadata=Packed("type/a", b"\x00\x01"),
        response=Packed("type/b", b""),
        error=b"\xff",
        cancel_requested=True,
        revision=3,
    )
    await store.create(full)
    assert await store.get(full.name) == full
    assert await store.get("operations/none") is None


async def test_a_name_is_taken_once(store: OperationStore) -> None:
    await store.create(operation(1))
    with pytest.raises(errors.AlreadyExists):
        await store.create(operation(1))


async def test_a_write_based_on_an_old_revision_is_refused(store: OperationStore) -> None:
    await store.create(operation(1))
    assert await store.replace(operation(1, done=True))
    assert not await store.replace(operation(1, cancel_requested=True))
    stored = await store.get("operations/01")
    assert stored is not None
    assert (stored.done, stored.cancel_requested, stored.revision) == (True, False, 1)
    assert not await store.replace(operation(2))


async def test_lists_are_newest_first_and_continue_after_a_position(store: OperationStore) -> None:
    for number in range(5):
        await store.create(operation(number, created=float(number // 2)))
    names = [o.name[-2:] for o in await store.list(ALL, after=None, limit=10)]
    assert names == ["04", "03", "02", "01", "00"]
    rest = await store.list(ALL, after=(1.0, "operations/03"), limit=2)
    assert [o.name[-2:] for o in rest] == ["02", "01"]


async def test_lists_are_narrowed(store: OperationStore) -> None:
    await store.create(operation(1, done=True))
    await store.create(operation(2, kind="Deploy"))
    assert [o.name[-2:] for o in await store.list(OperationFilter(done=False), after=None, limit=9)] == ["02"]
    assert [o.name[-2:] for o in await store.list(OperationFilter(kind="Build"), after=None, limit=9)] == [
        "01"
    ]


async def test_deleting_says_whether_there_was_something(store: OperationStore) -> None:
    await store.create(operation(1))
    assert await store.delete("operations/01")
    assert not await store.delete("operations/01")


async def test_operations_survive_the_process(tmp_path: Path) -> None:
    async def work(progress: Any) -> None:
        return None

    async with sqlite(tmp_path) as first:
        async with Operations(first) as operations:
            name = (await operations.start("Build", work)).name
            await operations.wait(name)
        await first.create(operation(1))
    async with sqlite(tmp_path) as second, Operations(second) as operations:
        assert (await operations.get(name)).response is not None
        interrupted = await operations.get("operations/01")
        assert interrupted.done
        assert interrupted.error is not None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql+nodriver://u:s3cret@h/d", "scheme 'postgresql+nodriver'"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///PATH"),
        ("no url", "looks like"),
    ],
)
async def test_a_wrong_url_says_what_is_right_and_not_the_password(url: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="database") as caught:
        async with SqlOperationStore.open(url):
            pass
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "operations.db").write_bytes(b"not a database, but something else that was there" * 100)
    with pytest.raises(errors.Unavailable, match="store"):
        async with sqlite(tmp_path):
            pass
