"""The bridge between blocking callers and the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from penstock_client.errors import FailedPrecondition
from penstock_client.portal import Face, Portal, blocking, blocking_iterator


class Counter:
    def __init__(self) -> None:
        self.closed = 0
        self.threads: set[str] = set()

    async def add(self, left: int, *, right: int = 1) -> int:
        """Adds."""
        self.threads.add(threading.current_thread().name)
        await asyncio.sleep(0)
        return left + right

    async def fail(self) -> None:
        raise ValueError("as asked")

    async def count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            self.closed += 1


class Blocking(Face[Counter]):
    add = blocking(Counter.add)
    fail = blocking(Counter.fail)
    count = blocking_iterator(Counter.count)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def face(counter: Counter) -> Iterator[Blocking]:
    portal = Portal()
    yield Blocking(counter, portal)
    portal.close()


def test_a_blocking_method_runs_on_the_clients_thread(face: Blocking, counter: Counter) -> None:
    assert face.add(2, right=3) == 5
    assert counter.threads == {"penstock-client"}


def test_a_blocking_method_keeps_name_and_documentation() -> None:
    assert Blocking.add.__name__ == "add"
    assert Blocking.add.__doc__ == "Adds."


def test_errors_come_through(face: Blocking) -> None:
    with pytest.raises(ValueError, match="as asked"):
        face.fail()


def test_an_iterator_gives_all_items_and_is_closed(face: Blocking, counter: Counter) -> None:
    assert list(face.count(3)) == [0, 1, 2]
    assert counter.closed == 1


def test_an_iterator_left_early_is_closed(face: Blocking, counter: Counter) -> None:
    for number in face.count(1000):
        if number == 2:
            break
    import gc

    gc.collect()
    assert counter.closed == 1


def test_several_threads_may_call_at_once(face: Blocking) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(face.add(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(results) == list(range(1, 21))


def test_a_closed_portal_says_so_and_ends_what_still_runs() -> None:
    portal = Portal()
    threading.Thread(target=lambda: _ignore(portal), daemon=True).start()
    portal.close()
    portal.close()

    with pytest.raises(FailedPrecondition, match="closed"):
        portal.run(Counter().add(1))


def _ignore(portal: Portal) -> None:
    import contextlib

    with contextlib.suppress(BaseException):
        portal.run(asyncio.sleep(60))
