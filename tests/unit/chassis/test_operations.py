"""The life of operations, on virtual time."""

import asyncio
from dataclasses import replace

import pytest
from chassis import errors
from chassis.operations import MemoryOperationStore, Operations, Packed, Progress
from chassis.operations.model import OperationFilter
from chassis.testing import FakeClock
from google.protobuf import duration_pb2, empty_pb2, timestamp_pb2
from google.rpc import status_pb2

EMPTY = "type.googleapis.com/google.protobuf.Empty"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryOperationStore:
    return MemoryOperationStore()


@pytest.fixture
async def operations(clock: FakeClock, store: MemoryOperationStore):
    ids = iter(range(1000))
    async with Operations(store, clock=clock, new_id=lambda: f"{next(ids):03}") as opened:
        yield opened


def failure(operation) -> status_pb2.Status:
    assert operation.error is not None
    return status_pb2.Status.FromString(operation.error)


async def forever(progress: Progress) -> None:
    await asyncio.Event().wait()


async def nothing(progress: Progress) -> None:
    return None


async def test_work_becomes_the_response(operations) -> None:
    async def work(progress: Progress) -> timestamp_pb2.Timestamp:
        return timestamp_pb2.Timestamp(seconds=7)

    started = await operations.start("Build", work, metadata=duration_pb2.Duration(seconds=1))
    assert not started.done
    assert started.metadata.type_url.endswith("google.protobuf.Duration")
    done = await operations.wait(started.name)
    assert done.done
    assert done.error is None
    assert timestamp_pb2.Timestamp.FromString(done.response.value).seconds == 7


async def test_work_without_an_answer_responds_empty(operations) -> None:
    done = await operations.wait((await operations.start("Build", nothing)).name)
    assert done.response == Packed(EMPTY, b"")


async def test_progress_is_seen_while_the_work_runs(operations, clock) -> None:
    async def work(progress: Progress) -> None:
        await progress.update(duration_pb2.Duration(seconds=50))
        await clock.sleep(10)

    name = (await operations.start("Build", work)).name
    await clock.advance(1)
    seen = await operations.get(name)
    assert duration_pb2.Duration.FromString(seen.metadata.value).seconds == 50
    assert not seen.done


async def test_our_errors_become_the_status(operations) -> None:
    async def work(progress: Progress) -> None:
        raise errors.NotFound("package 'a' is gone", reason="PACKAGE_UNKNOWN")

    done = await operations.wait((await operations.start("Build", work)).name)
    assert (failure(done).code, failure(done).message) == (5, "package 'a' is gone")
    assert done.response is None


async def test_unexpected_errors_are_told_generically(operations, caplog) -> None:
    async def work(progress: Progress) -> None:
        raise KeyError("secret path")

    done = await operations.wait((await operations.start("Build", work)).name)
    assert (failure(done).code, failure(done).message) == (13, "internal error")
    assert "secret path" in caplog.text


async def test_cancelling_stops_the_work(operations) -> None:
    name = (await operations.start("Build", forever)).name
    await asyncio.sleep(0)
    await operations.cancel(name)
    done = await operations.wait(name)
    assert failure(done).code == 1
    await operations.cancel(name)
    assert (await operations.get(name)) == done


async def test_work_may_finish_in_spite_of_being_cancelled(operations) -> None:
    async def work(progress: Progress) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    name = (await operations.start("Build", work)).name
    await asyncio.sleep(0)
    await operations.cancel(name)
    assert (await operations.wait(name)).response is not None


async def test_waiting_ends_with_its_timeout(operations, clock) -> None:
    name = (await operations.start("Build", forever)).name
    waiting = asyncio.create_task(operations.wait(name, timeout=5))
    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert not (await waiting).done


async def test_waiting_for_another_replica_looks_at_the_store(operations, clock, store) -> None:
    name = (await operations.start("Build", forever)).name
    async with Operations(store, clock=clock, exclusive=False) as other:
        waiting = asyncio.create_task(other.wait(name))
        await clock.advance(1)
        assert not waiting.done()
        await operations.cancel(name)
        await clock.advance(1)
        assert (await waiting).done


async def test_deleting_forgets_but_does_not_stop(operations, clock) -> None:
    ran = asyncio.Event()

    async def work(progress: Progress) -> None:
        await clock.sleep(1)
        ran.set()

    name = (await operations.start("Build", work)).name
    await operations.delete(name)
    with pytest.raises(errors.NotFound, match="no operation"):
        await operations.get(name)
    with pytest.raises(errors.NotFound):
        await operations.delete(name)
    await clock.advance(2)
    assert ran.is_set()


async def test_pages_go_through_all_newest_first(operations, clock) -> None:
    names = []
    for _ in range(5):
        names.append((await operations.start("Build", nothing)).name)
        await clock.advance(1)
    seen, token = [], ""
    while True:
        page = await operations.list(page_size=2, page_token=token)
        seen += [o.name for o in page.operations]
        token = page.next_token
        if not token:
            break
    assert seen == names[::-1]


async def test_lists_are_narrowed_by_kind_and_state(operations, clock) -> None:
    await operations.start("Build", nothing)
    running = await operations.start("Deploy", forever)
    await clock.settle()
    page = await operations.list(filter='done=false AND kind="Deploy"')
    assert [o.name for o in page.operations] == [running.name]
    assert (await operations.list(filter="done=true AND kind=Deploy")).operations == ()


@pytest.mark.parametrize(
    "text", ["done", "done=maybe", "name=x", "done=true OR done=false", 'kind="'], ids=str
)
def test_a_filter_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="filter"):
        OperationFilter.parse(text)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"page_token": "bnVsbA=="}, "page_token"),
    ],
)
async def test_pages_that_make_no_sense_are_refused(operations, arguments, field) -> None:
    with pytest.raises(errors.InvalidArgument, match=field):
        await operations.list(**arguments)


async def test_a_page_token_belongs_to_its_filter(operations) -> None:
    for _ in range(2):
        await operations.start("Build", nothing)
    token = (await operations.list(page_size=1)).next_token
    with pytest.raises(errors.InvalidArgument, match="another filter"):
        await operations.list(filter="done=true", page_size=1, page_token=token)


async def test_what_a_dead_process_left_is_aborted(clock, store) -> None:
    dead = Operations(store, clock=clock)
    name = (await dead.start("Build", forever)).name  # never entered, never left: as after kill -9
    async with Operations(store, clock=clock) as alive:
        done = await alive.get(name)
    assert failure(done).code == 10
    assert "interrupted" in failure(done).message
    dead._tasks[name].cancel()


async def test_a_kind_with_a_resumer_is_taken_up_again(clock, store) -> None:
    dead = Operations(store, clock=clock)
    name = (await dead.start("Deploy", forever, metadata=duration_pb2.Duration(seconds=3))).name

    async def resume(progress: Progress) -> duration_pb2.Duration:
        return duration_pb2.Duration.FromString(progress.operation.metadata.value)

    async with Operations(store, clock=clock, resumers={"Deploy": resume}) as alive:
        done = await alive.wait(name)
    assert duration_pb2.Duration.FromString(done.response.value).seconds == 3
    dead._tasks[name].cancel()


async def test_a_living_replica_s_work_is_left_alone_until_it_falls_silent(clock, store) -> None:
    silent = Operations(store, clock=clock, ownership=30)
    name = (await silent.start("Build", forever)).name
    async with Operations(store, clock=clock, exclusive=False, ownership=30) as other:
        await clock.advance(20)
        assert not (await other.get(name)).done
        await clock.advance(20)
        assert failure(await other.get(name)).code == 10
    silent._tasks[name].cancel()


async def test_a_running_process_keeps_its_ownership(operations, clock, store) -> None:
    name = (await operations.start("Build", forever)).name
    async with Operations(store, clock=clock, exclusive=False):
        await clock.advance(300)
        assert not (await operations.get(name)).done


async def test_a_cancellation_asked_of_another_replica_arrives(operations, clock, store) -> None:
    name = (await operations.start("Build", forever)).name
    async with Operations(store, clock=clock, exclusive=False) as other:
        await other.cancel(name)
        await clock.advance(15)
    assert failure(await operations.get(name)).code == 1


async def test_stopping_aborts_what_cannot_be_resumed_and_leaves_the_rest(clock, store) -> None:
    async with Operations(store, clock=clock, resumers={"Deploy": forever}) as stopping:
        build = (await stopping.start("Build", forever)).name
        deploy = (await stopping.start("Deploy", forever)).name
        await clock.settle()
    assert failure(await store.get(build)).code == 10
    assert not (await store.get(deploy)).done
    async with Operations(store, clock=clock, exclusive=False, resumers={"Deploy": nothing}) as again:
        assert (await again.wait(deploy, timeout=1)).done


async def test_old_operations_are_forgotten(clock, store) -> None:
    async with Operations(store, clock=clock, retention=100) as operations:
        old = (await operations.start("Build", nothing)).name
        running = (await operations.start("Build", forever)).name
        await clock.advance(120)
        assert await store.get(old) is None
        assert await store.get(running) is not None


async def test_an_amendment_that_lost_the_race_is_done_again(operations, store) -> None:
    name = (await operations.start("Build", forever)).name
    await asyncio.sleep(0)
    raced = False

    def change(current):
        nonlocal raced
        if not raced:
            raced = True
            store._operations[name] = replace(current, revision=current.revision + 1)
        return replace(current, metadata=Packed(EMPTY, empty_pb2.Empty().SerializeToString()))

    changed = await operations.amend(name, change)
    assert changed.metadata == Packed(EMPTY, b"")
    assert changed.revision == 2
