"""What handing a run to a worker thread costs: the batcher in place against through its worker.

usage: python -m bench.hand_over
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from mds.adapters.runtimes.onnx import OnnxRuntime, OnnxSession
from mds.app.batcher import Batcher
from mds.app.statistics import Statistics
from mds.app.steps import Steps
from mds.domain.execution import Batching, Execution

from bench import model

ROUNDS, REQUESTS = 5, 6000


class WorkerOnly(Steps):
    """The same steps, never run in place."""

    concurrent = False


async def cpu_us(kind: type[Steps], path: Path, concurrency: int, max_items: int) -> float:
    """CPU of this process per request, in microseconds."""
    runtime = OnnxRuntime()
    session = runtime.open(path, Execution(), instance=0)
    assert isinstance(session, OnnxSession)
    steps = kind(runtime.signature(path), session=session)
    loop = asyncio.get_running_loop()
    batching = Batching(max_items=max_items)
    batcher = Batcher(batching, [steps], Statistics(), joins=True, name="bench", on_fault=print, loop=loop)
    inputs = {"x": model.row()}

    async def caller(requests: int) -> None:
        for _ in range(requests):
            await batcher.run(inputs, 1, None)

    await caller(200)
    each = REQUESTS // concurrency
    before = time.process_time()
    await asyncio.gather(*(caller(each) for _ in range(concurrency)))
    spent = time.process_time() - before
    await batcher.close()
    return spent / (each * concurrency) * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        model.write(path)
        for concurrency, max_items in ((1, 0), (32, 0), (32, 16)):
            spent: dict[type[Steps], list[float]] = {Steps: [], WorkerOnly: []}
            for _ in range(ROUNDS):
                for kind, found in spent.items():
                    found.append(asyncio.run(cpu_us(kind, path, concurrency, max_items)))
            in_place, worker = (statistics.median(found) for found in spent.values())
            print(
                f"{concurrency} at once, max_items {max_items}: in place {in_place:.1f}, worker {worker:.1f}"
            )


if __name__ == "__main__":
    main()
