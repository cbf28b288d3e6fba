"""Puts requests together and runs them in worker threads.

There is no timer: a worker that becomes free takes what waits, up to the limit of items, so batches grow with
load and a lone request is never delayed (unless the package asks for `max_delay`). Requests are only joined
where all dimensions but the first agree, and a batch does not grow so far that its usual run time would break
the deadline of a request in it. Work that cannot finish before its deadline is shed before it is run.

A run that is known to cost less than handing it to a thread and back (`IN_PLACE_SECONDS`) is done in place,
on the event loop, if the model allows it and nothing waits: it holds up other calls for less time than the
hand-over would. What a run costs is learnt from the worker threads, for each size apart, and a model that
becomes slower goes back to them.

Threads: `run` and delivery happen on the event loop; `_Worker` in threads. The queue is a deque, whose
appends and pops are atomic; takers hold a lock among themselves. Wake-ups go through a SimpleQueue, results
come back with one `call_soon_threadsafe` a batch.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter_ns
from typing import Protocol

import numpy as np
from chassis import errors

from mds.app.costs import Costs
from mds.app.statistics import Statistics
from mds.app.steps import ModelFault, Timings
from mds.domain.execution import Batching
from mds.domain.tensors import Array

DEFAULT_QUEUE = 256
_SCAN = 256
# Measured with a run of 10 µs, CPU per request: in place 10 to 17 µs; through a worker 105 µs for a request
# alone, 57 with 32 at once, and 15 where 32 at once share runs. So in place pays below what it costs,
# and where runs are shared only for the smallest.
IN_PLACE_SECONDS = 90e-6
IN_PLACE_SECONDS_BATCHING = 30e-6
Tensors = Mapping[str, Array]
ShapeKey = tuple[tuple[str, tuple[int, ...]], ...]


class Runner(Protocol):
    """Runs one batch; `mds.app.steps.Steps` is one. Each worker thread has its own."""

    @property
    def concurrent(self) -> bool:
        """Whether any thread may run it at any time, and it does nothing but compute."""
        ...

    def run(self, inputs: Tensors) -> tuple[Tensors, Timings]:
        """Outputs by name, and when each step ended."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class Job:
    """One request in the queue. `deadline` is on the monotonic clock; times are `perf_counter_ns`."""

    __slots__ = ("deadline", "enqueued", "future", "inputs", "items", "key", "taken")

    def __init__(
        self,
        inputs: Tensors,
        items: int,
        deadline: float | None,
        future: "asyncio.Future[Result]",
        key: ShapeKey | None,
    ) -> None:
        self.inputs = inputs
        self.items = items
        self.deadline = deadline
        self.future = future
        self.key = key
        self.enqueued = perf_counter_ns()
        self.taken = 0


class Result:
    """What a job gets: its outputs, when its steps ended, and how it was batched."""

    __slots__ = ("batch_items", "enqueued", "outputs", "timings")

    def __init__(self, outputs: Tensors, timings: Timings, enqueued: int, batch_items: int) -> None:
        self.outputs = outputs
        self.timings = timings
        self.enqueued = enqueued
        self.batch_items = batch_items


Outcome = tuple[Job, Result | BaseException]


class Batcher:
    """The queue in front of a model and its worker threads.

    `on_fault` is told, on the event loop, of each exception of the model's own; callers get a general text.
    """

    def __init__(
        self,
        batching: Batching,
        runners: Sequence[Runner],
        statistics: Statistics,
        *,
        joins: bool,
        name: str,
        on_fault: Callable[[BaseException], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._statistics = statistics
        self._on_fault = on_fault
        self._queue: deque[Job] = deque()
        self._taking = threading.Lock()
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._joins = joins
        self.costs = Costs()
        self.stopping = False
        self._in_place = runners[0] if runners[0].concurrent else None
        self.tune(batching)
        self.workers = [_Worker(self, runner, f"{name}-{index}") for index, runner in enumerate(runners)]
        for worker in self.workers:
            worker.start()

    def tune(self, batching: Batching) -> None:
        """Changes how requests are put together, from the next batch on."""
        self.batching = batching
        self.max_items = batching.max_items if self._joins and batching.max_items > 1 else 0
        self.max_queue = batching.max_queue or DEFAULT_QUEUE
        self._cheap = IN_PLACE_SECONDS_BATCHING if self.max_items else IN_PLACE_SECONDS

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def waiting_items(self) -> int:
        """Items that wait."""
        return sum(job.items for job in list(self._queue))

    @property
    def oldest_ns(self) -> int:
        """How long the oldest has waited."""
        try:
            return perf_counter_ns() - self._queue[0].enqueued
        except IndexError:
            return 0

    def expected_wait(self) -> float:
        """Seconds that a request which comes now is likely to wait: what is queued, at its usual cost."""
        size = self.max_items or 1
        runs = -(-len(self._queue) // max(1, size))
        return runs * self.costs.usual(size) / len(self.workers)

    async def run(self, inputs: Tensors, items: int, deadline: float | None) -> Result:
        """Runs a request, alone or in a batch.

        Raises ResourceExhausted at once if too many wait, DeadlineExceeded if it cannot be done in time,
        InvalidArgument as the model says, Internal for the model's faults.
        """
        if self._in_place is not None and not self._queue and self._is_cheap(items):
            return self._run_in_place(self._in_place, inputs, items, deadline)
        if len(self._queue) >= self.max_queue:
            self._statistics.rejected += 1
            raise errors.ResourceExhausted(
                f"{self.max_queue} requests already wait for this model; try again later or elsewhere",
                reason="QUEUE_FULL",
                metadata={"queue": str(self.max_queue)},
                retry_after=max(0.001, self.expected_wait()),
            )
        key = _shape_key(inputs) if self.max_items else None
        job = Job(inputs, items, deadline, self._loop.create_future(), key)
        if deadline is None:
            self._queue.append(job)
            self._wakeups.put(None)
            return await job.future
        remaining = deadline - monotonic()
        if remaining <= 0:
            self._statistics.shed += 1
            raise too_late(remaining)
        timer = self._loop.call_later(remaining, _expire, job)
        self._queue.append(job)
        self._wakeups.put(None)
        try:
            return await job.future
        finally:
            timer.cancel()

    def _is_cheap(self, items: int) -> bool:
        known = self.costs.known(items)
        return known is not None and known < self._cheap

    def _run_in_place(self, runner: Runner, inputs: Tensors, items: int, deadline: float | None) -> Result:
        if deadline is not None and (spare := deadline - monotonic()) <= 0:
            self._statistics.shed += 1
            raise too_late(spare)
        try:
            outputs, timings = runner.run(inputs)
        except errors.Error:
            raise
        except Exception as error:
            self._on_fault(error)
            raise model_failed(error) from error
        self.costs.observe(items, (timings.end - timings.begin) * 1e-9)
        self._statistics.ran(items, timings)
        self._statistics.waited(0)
        return Result(outputs, timings, timings.begin, items)

    def take(self) -> tuple[list[Job], list[Outcome]]:
        """For a worker: the next batch, and what was shed on the way to it. Both may be empty."""
        with self._taking:
            batch: list[Job] = []
            outcomes: list[Outcome] = []
            self._collect(batch, outcomes)
        if batch and self.batching.max_delay and self.max_items:
            self._linger(batch, outcomes)
        self._settle_wakeups(len(batch) + len(outcomes) - 1)
        now = perf_counter_ns()
        for job in batch:
            job.taken = now
        return batch, outcomes

    def _settle_wakeups(self, surplus: int) -> None:
        """Keeps about one wake-up for each job that waits: none too few, and not ever more under load."""
        try:
            for _ in range(surplus):
                self._wakeups.get_nowait()
        except Empty:
            pass
        if self._queue and self._wakeups.empty():
            self._wakeups.put(None)

    def _collect(self, batch: list[Job], outcomes: list[Outcome]) -> None:
        queue = self._queue
        passed: list[Job] = []
        items = sum(job.items for job in batch)
        while len(passed) < _SCAN:
            try:
                job = queue.popleft()
            except IndexError:
                break
            if job.future.done():
                continue  # given up by its caller
            late = self._lateness(job)
            if late is not None:
                outcomes.append((job, late))
                continue
            if not batch:
                batch.append(job)
                items = job.items
            elif self._fits(job, batch, items):
                batch.append(job)
                items += job.items
            else:
                passed.append(job)
                if job.key == batch[0].key:
                    break  # full, or too slow for somebody's deadline: later ones must not overtake it
            if items >= (self.max_items or 1):
                break
        if passed:
            queue.extendleft(reversed(passed))

    def _lateness(self, job: Job) -> errors.DeadlineExceeded | None:
        if job.deadline is None:
            return None
        spare = job.deadline - monotonic() - self.costs.best(job.items)
        if spare >= 0:
            return None
        self.costs.doubt(job.items)
        return too_late(spare)

    def _fits(self, job: Job, batch: list[Job], items: int) -> bool:
        total = items + job.items
        if total > self.max_items or job.key != batch[0].key:
            return False
        deadlines = [one.deadline for one in (*batch, job) if one.deadline is not None]
        return not deadlines or monotonic() + self.costs.usual(total) <= min(deadlines)

    def _linger(self, batch: list[Job], outcomes: list[Outcome]) -> None:
        """Waits for more items, as the package asked, but not so long that a deadline would be missed."""
        until = monotonic() + self.batching.max_delay
        while not self.stopping:
            items = sum(job.items for job in batch)
            deadlines = [job.deadline for job in batch if job.deadline is not None]
            limit = min([until, *(d - self.costs.usual(items) for d in deadlines)])
            rest = limit - monotonic()
            if items >= self.max_items or rest <= 0:
                return
            try:
                self._wakeups.get(timeout=rest)
            except Empty:
                return
            with self._taking:
                self._collect(batch, outcomes)

    def wait_for_work(self) -> None:
        """For a worker: blocks until there may be something to take."""
        self._wakeups.get()

    def hand_back(
        self, outcomes: list[Outcome], runs: list[tuple[int, Timings]], faults: list[BaseException]
    ) -> None:
        """For a worker: results go to the event loop."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes, runs, faults)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _deliver(
        self, outcomes: list[Outcome], runs: list[tuple[int, Timings]], faults: list[BaseException]
    ) -> None:
        statistics = self._statistics
        for items, timings in runs:
            statistics.ran(items, timings)
        for fault in faults:
            self._on_fault(fault)
        for job, outcome in outcomes:
            if job.taken:
                statistics.waited(job.taken - job.enqueued)
            elif isinstance(outcome, errors.DeadlineExceeded):
                statistics.shed += 1
            if job.future.done():
                continue
            if isinstance(outcome, Result):
                job.future.set_result(outcome)
            else:
                job.future.set_exception(outcome)

    async def close(self) -> None:
        """Runs what waits, then ends the workers and frees the model."""
        self.stopping = True
        for _ in self.workers:
            self._wakeups.put(None)
        await asyncio.gather(*(asyncio.to_thread(worker.join) for worker in self.workers))


class _Worker(threading.Thread):
    """One instance of the model and the thread that runs it."""

    def __init__(self, batcher: Batcher, runner: Runner, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._batcher = batcher
        self._runner = runner
        self.busy = False

    def run(self) -> None:
        """Takes and runs batches until the batcher stops and nothing waits."""
        batcher = self._batcher
        while True:
            batcher.wait_for_work()
            batch, outcomes = batcher.take()
            if batch:
                self.busy = True
                self._run(batch, outcomes)
                self.busy = False
            elif outcomes:
                batcher.hand_back(outcomes, [], [])
            elif batcher.stopping and not batcher.waiting:
                break
        self._runner.close()

    def _run(self, batch: list[Job], outcomes: list[Outcome]) -> None:
        runs: list[tuple[int, Timings]] = []
        faults: list[BaseException] = []
        self._run_jobs(batch, outcomes, runs, faults)
        self._batcher.hand_back(outcomes, runs, faults)

    def _run_jobs(
        self,
        jobs: list[Job],
        outcomes: list[Outcome],
        runs: list[tuple[int, Timings]],
        faults: list[BaseException],
    ) -> None:
        items = sum(job.items for job in jobs)
        try:
            outputs, timings = self._runner.run(_joined(jobs))
            parts = _split(outputs, jobs, items) if len(jobs) > 1 else [outputs]
        except BaseException as error:  # noqa: BLE001 - whatever the model's code raises, its thread lives on
            if len(jobs) > 1:
                # Somebody's data is bad: each runs alone, so that it fails alone.
                for job in jobs:
                    self._run_jobs([job], outcomes, runs, faults)
                return
            if isinstance(error, errors.Error):
                outcomes.append((jobs[0], error))
            else:
                faults.append(error)
                outcomes.append((jobs[0], model_failed(error)))
            return
        self._batcher.costs.observe(items, (timings.end - timings.begin) * 1e-9)
        runs.append((items, timings))
        for job, part in zip(jobs, parts, strict=True):
            outcomes.append((job, Result(part, timings, job.enqueued, items)))


def _joined(jobs: list[Job]) -> Tensors:
    if len(jobs) == 1:
        return jobs[0].inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def _split(outputs: Tensors, jobs: list[Job], items: int) -> list[Tensors]:
    for name, array in outputs.items():
        if array.shape[0] != items:
            raise ModelFault(
                f"output {name!r} has {array.shape[0]} items for a batch of {items}: a model that "
                "batches must give "
                "one for each"
            )
    parts: list[Tensors] = []
    start = 0
    for job in jobs:
        end = start + job.items
        parts.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return parts


def _shape_key(inputs: Tensors) -> ShapeKey:
    return tuple(sorted((name, array.shape[1:]) for name, array in inputs.items()))


def _expire(job: Job) -> None:
    if not job.future.done():
        job.future.set_exception(too_late(0.0))


def too_late(spare: float) -> errors.DeadlineExceeded:
    """The error for work that cannot finish before its deadline."""
    return errors.DeadlineExceeded(
        "the request could not be finished before its deadline; it was not run"
        if spare < 0
        else "the deadline passed while the request waited or ran",
        reason="DEADLINE_EXCEEDED",
    )


def model_failed(cause: BaseException) -> errors.Internal:
    """The error that callers get for a fault of the model."""
    error = errors.Internal(
        "the model failed on this request; the server's log has the details", reason="MODEL_FAILED"
    )
    error.__cause__ = cause
    return error
