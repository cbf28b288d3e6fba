"""Counts and times of what a model has answered. Written by the event loop only."""

from bisect import bisect_left
from dataclasses import dataclass, field

from mds.app.steps import Timings

SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Histogram:
    """A histogram that costs a bisection an observation."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class BatchStatistics:
    """Runs of one size; times in nanoseconds, in all."""

    count: int = 0
    preprocess_ns: int = 0
    inference_ns: int = 0
    postprocess_ns: int = 0


@dataclass(slots=True)
class Statistics:
    """Since the model was loaded; times in nanoseconds, in all."""

    succeeded: int = 0
    success_ns: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    fail_ns: int = 0
    shed: int = 0
    rejected: int = 0
    items: int = 0
    requests: int = 0
    queue_ns: int = 0
    preprocess_ns: int = 0
    inference_ns: int = 0
    postprocess_ns: int = 0
    last_request: float = 0.0
    batches: dict[int, BatchStatistics] = field(default_factory=dict)
    queue_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    inference_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_items: Histogram = field(default_factory=lambda: Histogram(SIZES))

    def ran(self, items: int, timings: Timings) -> None:
        """A batch was run."""
        batch = self.batches.get(items)
        if batch is None:
            batch = self.batches[items] = BatchStatistics()
        preprocess = timings.preprocessed - timings.begin
        inference = timings.inferred - timings.preprocessed
        postprocess = timings.end - timings.inferred
        batch.count += 1
        batch.preprocess_ns += preprocess
        batch.inference_ns += inference
        batch.postprocess_ns += postprocess
        self.items += items
        self.preprocess_ns += preprocess
        self.inference_ns += inference
        self.postprocess_ns += postprocess
        self.inference_seconds.observe(inference * 1e-9)
        self.batch_items.observe(items)

    def waited(self, nanoseconds: int) -> None:
        """A request left the queue to be run."""
        self.requests += 1
        self.queue_ns += nanoseconds
        self.queue_seconds.observe(nanoseconds * 1e-9)

    def answered(self, nanoseconds: int, now: float) -> None:
        """A request was answered."""
        self.succeeded += 1
        self.success_ns += nanoseconds
        self.last_request = now

    def refused(self, code: str, nanoseconds: int, now: float) -> None:
        """A request failed."""
        self.failed[code] = self.failed.get(code, 0) + 1
        self.fail_ns += nanoseconds
        self.last_request = now

    @property
    def executions(self) -> int:
        """Batches run."""
        return sum(batch.count for batch in self.batches.values())
