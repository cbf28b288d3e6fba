"""The batcher: who shares a run with whom, who is shed, and that everybody gets their own answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from time import monotonic, perf_counter_ns

import numpy as np
import pytest
from chassis import errors
from mds.app.batcher import Batcher
from mds.app.costs import Costs
from mds.app.statistics import Statistics
from mds.app.steps import Timings
from mds.domain.execution import Batching
from mds.domain.tensors import Array

Tensors = Mapping[str, Array]


class Held:
    """A model that doubles, runs only when it is let, and remembers what it was given."""

    concurrent = False

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.closed = False
        self.rows_off = 0

    def run(self, inputs: Tensors) -> tuple[Tensors, Timings]:
        begin = perf_counter_ns()
        self.begun.release()
        assert self.let.acquire(timeout=10)
        x = inputs["x"]
        self.runs.append(x.ravel().tolist())
        if (x == 13).any():
            raise RuntimeError("thirteen")
        if (x < 0).any():
            raise errors.InvalidArgument("negative", reason="INPUT_REFUSED")
        now = perf_counter_ns()
        return {"y": x[: len(x) - self.rows_off] * 2}, Timings(begin, begin, now, now)

    def close(self) -> None:
        self.closed = True


class Bench:
    """A batcher over one held model."""

    def __init__(self, batching: Batching, *, joins: bool = True) -> None:
        self.model = Held()
        self.statistics = Statistics()
        self.faults: list[BaseException] = []
        self.batcher = Batcher(
            batching,
            [self.model],
            self.statistics,
            joins=joins,
            name="test",
            on_fault=self.faults.append,
            loop=asyncio.get_running_loop(),
        )

    def ask(
        self, *values: float, deadline: float | None = None, width: int = 1
    ) -> "asyncio.Task[list[float]]":
        async def call() -> list[float]:
            x = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
            result = await self.batcher.run({"x": x}, len(values), deadline)
            return result.outputs["y"][:, 0].tolist()  # type: ignore[no-any-return]

        return asyncio.create_task(call())

    async def occupied(self) -> "asyncio.Task[list[float]]":
        """The worker is in a run, so that what comes now has to wait."""
        first = self.ask(1)
        await asyncio.to_thread(self.model.begun.acquire, timeout=10)
        return first

    async def finish(self, *tasks: "asyncio.Task[list[float]]") -> list[object]:
        await asyncio.sleep(0)
        for _ in range(50):
            self.model.let.release()
        return list(await asyncio.gather(*tasks, return_exceptions=True))


@pytest.fixture
async def bench() -> AsyncIterator[object]:
    made: list[Bench] = []

    def make(batching: Batching, *, joins: bool = True) -> Bench:
        made.append(Bench(batching, joins=joins))
        return made[-1]

    yield make
    for one in made:
        for _ in range(100):
            one.model.let.release()
        await one.batcher.close()
        assert one.model.closed


async def queued(*tasks: "asyncio.Task[list[float]]") -> None:
    """Lets the tasks get as far as the queue."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_waits_shares_a_run_and_each_gets_its_own_rows(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=8))
    first = await one.occupied()
    others = [one.ask(2, 3), one.ask(4), one.ask(5, 6, 7)]
    await queued(*others)
    assert await one.finish(first, *others) == [[2], [4, 6], [8], [10, 12, 14]]
    assert one.model.runs == [[1], [2, 3, 4, 5, 6, 7]]
    assert one.statistics.items == 7
    assert one.statistics.executions == 2


async def test_the_limit_counts_items_and_order_is_kept(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4))
    first = await one.occupied()
    others = [one.ask(2, 3, 4), one.ask(5, 6), one.ask(7)]
    await queued(*others)
    await one.finish(first, *others)
    assert one.model.runs == [[1], [2, 3, 4], [5, 6, 7]]


async def test_a_request_larger_than_the_limit_still_runs_alone(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=2))
    first = await one.occupied()
    large = one.ask(*range(2, 9))
    await queued(large)
    assert (await one.finish(first, large))[1] == [4, 6, 8, 10, 12, 14, 16]


async def test_only_like_shapes_share_a_run(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=8))
    first = await one.occupied()
    others = [one.ask(2, width=1), one.ask(3, width=2), one.ask(4, width=1), one.ask(5, width=2)]
    await queued(*others)
    await one.finish(first, *others)
    assert one.model.runs == [[1], [2, 4], [3, 3, 5, 5]]


@pytest.mark.parametrize("joins", [True, False])
async def test_without_batching_requests_run_one_by_one(joins: bool, bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching() if joins else Batching(max_items=8), joins=joins)
    first = await one.occupied()
    others = [one.ask(2), one.ask(3)]
    await queued(*others)
    await one.finish(first, *others)
    assert one.model.runs == [[1], [2], [3]]


async def test_a_fault_or_a_refusal_touches_nobody_else(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=8))
    first = await one.occupied()
    others = [one.ask(2), one.ask(13), one.ask(-1), one.ask(4)]
    await queued(*others)
    _, good, fault, refused, also_good = await one.finish(first, *others)
    assert (good, also_good) == ([4], [8])
    assert isinstance(fault, errors.Internal)
    assert "thirteen" not in fault.message
    assert isinstance(refused, errors.InvalidArgument)
    assert [str(f) for f in one.faults] == ["thirteen"]


async def test_a_model_that_loses_rows_is_at_fault_alone(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=8))
    first = await one.occupied()
    others = [one.ask(2), one.ask(3)]
    await queued(*others)
    one.model.rows_off = 1
    results = await one.finish(first, *others)
    assert results[1:] == [[], []]  # run again one by one, each gets what the model gave for it


async def test_a_full_queue_refuses_at_once(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4, max_queue=2))
    first = await one.occupied()
    waiting = [one.ask(2), one.ask(3)]
    await queued(*waiting)
    with pytest.raises(errors.ResourceExhausted) as caught:
        await one.ask(4)
    assert caught.value.retry_after is not None
    assert one.statistics.rejected == 1
    assert await one.finish(first, *waiting) == [[2], [4], [6]]


async def test_what_is_late_already_is_not_queued(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4))
    with pytest.raises(errors.DeadlineExceeded):
        await one.ask(2, deadline=monotonic() - 0.1)
    assert one.statistics.shed == 1
    assert one.model.runs == []


async def test_a_deadline_that_passes_in_the_queue_is_told_then_and_the_work_is_not_done(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4))
    first = await one.occupied()
    late = one.ask(2, deadline=monotonic() + 0.03)
    with pytest.raises(errors.DeadlineExceeded):
        await late
    await one.finish(first)
    assert one.model.runs == [[1]]


async def test_work_that_cannot_be_done_in_time_is_shed_before_it_is_run(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4))
    one.batcher.costs.observe(4, 5.0)  # a run of four takes five seconds
    first = await one.occupied()
    hopeless, patient = one.ask(2, 2, 2, 2, deadline=monotonic() + 2), one.ask(3)
    await queued(hopeless, patient)
    results = await one.finish(first, hopeless, patient)
    assert isinstance(results[1], errors.DeadlineExceeded)
    assert results[2] == [6]
    assert one.model.runs == [[1], [3]]
    assert one.statistics.shed == 1


async def test_a_batch_does_not_grow_beyond_somebodys_deadline(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=64))
    one.batcher.costs.observe(1, 0.001)
    one.batcher.costs.observe(32, 30.0)
    first = await one.occupied()
    urgent, bulk = one.ask(2, deadline=monotonic() + 5), one.ask(*[3] * 40)
    await queued(urgent, bulk)
    results = await one.finish(first, urgent, bulk)
    assert results[1] == [4]
    assert one.model.runs[1] == [2]


async def test_who_gives_up_is_not_run(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=4))
    first = await one.occupied()
    gone, stays = one.ask(2), one.ask(3)
    await queued(gone, stays)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await one.finish(first, stays)
    assert one.model.runs == [[1], [3]]


async def test_with_a_delay_a_free_worker_waits_for_more(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=2, max_delay=5.0))
    for _ in range(5):
        one.model.let.release()
    started = monotonic()
    first, second = one.ask(1), one.ask(2)
    assert await first == [2]
    assert await second == [4]
    assert one.model.runs == [[1, 2]]
    assert monotonic() - started < 4  # it went when it was full, not when the time was over


async def test_closing_runs_what_waits(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=1))
    first = await one.occupied()
    others = [one.ask(2), one.ask(3)]
    await queued(*others)
    closing = asyncio.create_task(one.batcher.close())
    assert await one.finish(first, *others) == [[2], [4], [6]]
    await closing


async def test_under_load_everybody_is_answered_and_wakeups_do_not_pile_up(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(Batching(max_items=16, max_queue=1000))
    for _ in range(2000):
        one.model.let.release()
    answers = await asyncio.gather(*(one.ask(float(n % 7)) for n in range(800)))
    assert answers == [[n % 7 * 2] for n in range(800)]
    assert one.batcher._wakeups.qsize() < 20


def test_costs_learn_fast_runs_at_once_and_forget_wrong_beliefs() -> None:
    costs = Costs()
    assert costs.best(5) == 0.0
    costs.observe(4, 1.0)
    assert costs.best(4) == costs.best(7) == costs.best(100) == 1.0
    assert costs.best(2) == 0.0
    costs.observe(4, 0.1)
    assert costs.best(4) == 0.1
    costs.observe(4, 10.0)
    assert costs.best(4) < 1.5
    for _ in range(100):
        costs.doubt(4)
    assert costs.best(4) < 0.001


class Told:
    """A model that doubles in the time that it is told to report, and remembers which threads ran it."""

    def __init__(self, *, concurrent: bool) -> None:
        self.concurrent = concurrent
        self.seconds = 10e-6
        self.threads: list[str] = []

    def run(self, inputs: Tensors) -> tuple[Tensors, Timings]:
        self.threads.append(threading.current_thread().name)
        x = inputs["x"]
        if (x == 13).any():
            raise RuntimeError("thirteen")
        begin = perf_counter_ns()
        end = begin + int(self.seconds * 1e9)
        return {"y": x * 2}, Timings(begin, begin, end, end)

    def close(self) -> None:
        pass


async def _asked(model: Told, sizes: list[int]) -> tuple[list[float], Statistics]:
    """One request after another, of so many items each; the first element of each answer."""
    statistics = Statistics()
    batcher = Batcher(
        Batching(max_items=16),
        [model],
        statistics,
        joins=True,
        name="test",
        on_fault=lambda _: None,
        loop=asyncio.get_running_loop(),
    )
    try:
        answers = []
        for size in sizes:
            result = await batcher.run({"x": np.full((size, 1), 21, np.float32)}, size, None)
            answers.append(float(result.outputs["y"][0, 0]))
        return answers, statistics
    finally:
        await batcher.close()


async def test_a_run_known_to_be_cheap_is_done_in_place_and_counted_like_any_other() -> None:
    model = Told(concurrent=True)
    answers, statistics = await _asked(model, [1, 1, 1])
    assert answers == [42, 42, 42]
    assert model.threads == ["test-0", "MainThread", "MainThread"]
    assert (statistics.items, statistics.batches[1].count) == (3, 3)


async def test_a_size_that_never_ran_goes_to_the_worker_first() -> None:
    model = Told(concurrent=True)
    await _asked(model, [1, 1, 8, 8])
    assert model.threads == ["test-0", "MainThread", "test-0", "MainThread"]


async def test_a_model_that_is_not_cheap_or_may_block_stays_with_its_worker() -> None:
    slow, blocking = Told(concurrent=True), Told(concurrent=False)
    slow.seconds = 1e-3
    for model in (slow, blocking):
        await _asked(model, [1, 1, 1])
        assert model.threads == ["test-0"] * 3


async def test_a_model_that_batches_stays_with_its_worker_where_sharing_a_run_is_cheaper() -> None:
    model = Told(concurrent=True)
    model.seconds = 60e-6
    await _asked(model, [1, 1, 1])
    assert model.threads == ["test-0"] * 3


async def test_a_model_that_becomes_slow_goes_back_to_its_worker() -> None:
    model = Told(concurrent=True)
    statistics = Statistics()
    batcher = Batcher(
        Batching(),
        [model],
        statistics,
        joins=False,
        name="test",
        on_fault=lambda _: None,
        loop=asyncio.get_running_loop(),
    )
    one = {"x": np.ones((1, 1), np.float32)}
    await batcher.run(one, 1, None)
    model.seconds = 5e-3
    await batcher.run(one, 1, None)
    await batcher.run(one, 1, None)
    await batcher.close()
    assert model.threads == ["test-0", "MainThread", "test-0"]


async def test_in_place_too_faults_are_told_in_general_and_late_work_is_shed() -> None:
    model = Told(concurrent=True)
    faults: list[BaseException] = []
    statistics = Statistics()
    batcher = Batcher(
        Batching(),
        [model],
        statistics,
        joins=False,
        name="test",
        on_fault=faults.append,
        loop=asyncio.get_running_loop(),
    )
    await batcher.run({"x": np.ones((1, 1), np.float32)}, 1, None)
    with pytest.raises(errors.Internal) as told:
        await batcher.run({"x": np.full((1, 1), 13, np.float32)}, 1, None)
    assert "thirteen" not in told.value.message
    assert [str(fault) for fault in faults] == ["thirteen"]
    with pytest.raises(errors.DeadlineExceeded):
        await batcher.run({"x": np.ones((1, 1), np.float32)}, 1, monotonic() - 1)
    assert statistics.shed == 1
    assert model.threads == ["test-0", "MainThread"]
    await batcher.close()
