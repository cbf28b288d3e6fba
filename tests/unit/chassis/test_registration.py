"""Keeping an endpoint registered, on virtual time."""

import asyncio

import pytest
from chassis import errors
from chassis.registry.memory import MemoryRegistry
from chassis.registry.port import Endpoint, Lease
from chassis.registry.registration import KeepRegistered
from chassis.testing import FakeClock

ENDPOINT = Endpoint("digits", "classifier", "1", "r1", "127.0.0.1:1")


class Provider(MemoryRegistry):
    """A registry that can be cut off, and counts."""

    down = False
    registrations = 0
    renewals = 0

    async def register(self, endpoint: Endpoint, ttl: float) -> Lease:
        self._reach()
        self.registrations += 1
        return await super().register(endpoint, ttl)

    async def renew(self, lease: Lease) -> Lease:
        self._reach()
        self.renewals += 1
        return await super().renew(lease)

    async def deregister(self, lease: Lease) -> None:
        self._reach()
        await super().deregister(lease)

    def _reach(self) -> None:
        if self.down:
            raise errors.Unavailable("down", reason="DOWN")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider(clock: FakeClock) -> Provider:
    return Provider(monotonic=clock.monotonic)


@pytest.fixture
async def keep(clock: FakeClock, provider: Provider):
    kept = KeepRegistered(provider, ENDPOINT, ttl=9.0, clock=clock, jitter=lambda: 1.0)
    task = asyncio.create_task(kept.run())
    yield kept
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_lease_is_renewed_at_a_third_of_its_time(keep, clock, provider) -> None:
    await clock.advance(30)
    assert (provider.registrations, provider.renewals) == (1, 10)
    assert provider.endpoints == (ENDPOINT,)


async def test_a_lost_lease_is_registered_again_at_once(keep, clock, provider) -> None:
    await clock.advance(1)
    lease = keep._lease
    assert lease is not None
    await provider.deregister(lease)
    await clock.advance(3)
    assert provider.registrations == 2
    assert provider.endpoints == (ENDPOINT,)


async def test_an_unreachable_provider_is_tried_again_with_growing_pauses(clock, provider) -> None:
    provider.down = True
    keep = KeepRegistered(provider, ENDPOINT, ttl=9.0, clock=clock, jitter=lambda: 1.0)
    pauses = [await keep.keep_once() for _ in range(6)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    provider.down = False
    assert await keep.keep_once() == 3.0
    assert keep.registered


async def test_pauses_are_spread_by_jitter(clock, provider) -> None:
    provider.down = True
    keep = KeepRegistered(provider, ENDPOINT, ttl=9.0, clock=clock, jitter=lambda: 0.0)
    assert await keep.keep_once() == pytest.approx(0.1)


async def test_a_short_outage_keeps_the_lease(keep, clock, provider) -> None:
    await clock.advance(1)
    provider.down = True
    await clock.advance(4)
    provider.down = False
    await clock.advance(4)
    assert provider.registrations == 1
    assert provider.endpoints == (ENDPOINT,)


async def test_draining_deregisters_and_stops(keep, clock, provider) -> None:
    await clock.advance(1)
    await keep.deregister()
    assert provider.endpoints == ()
    await clock.advance(30)
    assert provider.registrations == 1
    assert not keep.registered


async def test_draining_without_a_provider_lets_the_lease_run_out(keep, clock, provider) -> None:
    await clock.advance(1)
    provider.down = True
    await keep.deregister()
    await clock.advance(9)
    assert provider.endpoints == ()
