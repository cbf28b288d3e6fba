"""Virtual time moves only when told."""

import asyncio

from chassis.testing import FakeClock


async def test_sleepers_wake_in_order_at_their_time() -> None:
    clock, woken = FakeClock(monotonic=0.0), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper("b", 2)), asyncio.create_task(sleeper("a", 1))]
    await clock.advance(0.5)
    assert woken == []
    assert clock.sleeping == 2
    await clock.advance(5)
    assert woken == [("a", 1.0), ("b", 2.0)]
    assert clock.monotonic() == 5.5
    await asyncio.gather(*tasks)


async def test_a_loop_runs_once_for_each_interval_passed() -> None:
    clock, rounds = FakeClock(), 0

    async def loop() -> None:
        nonlocal rounds
        while True:
            await clock.sleep(1)
            rounds += 1

    task = asyncio.create_task(loop())
    await clock.advance(10)
    assert rounds == 10
    task.cancel()


async def test_wall_and_monotonic_time_move_together() -> None:
    clock = FakeClock(time=100.0, monotonic=5.0)
    await clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 7.5)


async def test_a_cancelled_sleeper_does_not_hold_up_time() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1))
    await clock.settle()
    task.cancel()
    await clock.advance(2)
    assert clock.sleeping == 0


async def test_sleeping_no_time_lets_others_run() -> None:
    await FakeClock().sleep(0)
