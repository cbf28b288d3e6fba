"""Consul: what only the real agent and the real consensus do."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from consul import Check
from consul.aio import Consul as Client

from tests.real.servers.consul import Consul, ConsulMember
from tests.real.waiting import until

pytestmark = [
    # py-consul 1.8 makes its aiohttp connector with parameters that aiohttp has renamed
    pytest.mark.filterwarnings("ignore:.*(ssl_context|verify_ssl).*:DeprecationWarning"),
]


@pytest.fixture
async def client(consul: Consul) -> AsyncIterator[Client]:
    made = connect(consul)
    yield made
    await made.close()


def connect(agent: Consul) -> Client:
    host, _, port = agent.address.partition(":")
    return Client(host=host, port=int(port))


async def another_leader(client: Client, than: str) -> bool:
    return await client.status.leader() not in ("", than)


async def test_a_blocking_query_sees_a_health_check_change(client: Client, consul_prefix: str) -> None:
    await client.agent.service.register(consul_prefix, port=1, check=Check.ttl("1h"))
    try:
        index, passing = await client.health.service(consul_prefix, passing=True)
        assert passing == []
        query = asyncio.create_task(
            client.health.service(consul_prefix, index=index, wait="30s", passing=True)
        )
        done, _ = await asyncio.wait([query], timeout=0.5)
        assert not done, "the query came back although nothing had changed"
        started = time.monotonic()
        await client.agent.check.ttl_pass(f"service:{consul_prefix}")
        later, passing = await query
        assert time.monotonic() - started < 5
        assert int(later) > int(index)
        assert [entry["Service"]["ID"] for entry in passing] == [consul_prefix]
    finally:
        await client.agent.service.deregister(consul_prefix)


async def test_of_two_writers_with_the_same_index_one_wins(client: Client, consul_prefix: str) -> None:
    key = f"{consul_prefix}/route"
    await client.kv.put(key, "first")
    _, entry = await client.kv.get(key)
    index = entry["ModifyIndex"]
    outcomes = await asyncio.gather(*(client.kv.put(key, text, cas=index) for text in ("a", "b")))
    assert sorted(outcomes) == [False, True]
    await client.kv.delete(consul_prefix, recurse=True)


async def test_a_cluster_that_loses_its_leader_elects_another_and_keeps_what_was_written(
    consul_servers: Sequence[ConsulMember],
) -> None:
    first = connect(consul_servers[0])
    try:
        await first.kv.put("kept", "value")
        address = await first.status.leader()
    finally:
        await first.close()
    (leader,) = [member for member in consul_servers if member.raft_address == address]
    leader.server.signal(signal.SIGKILL)
    survivor = connect(next(member for member in consul_servers if member is not leader))
    try:
        await until(lambda: another_leader(survivor, address))
        _, entry = await survivor.kv.get("kept", consistency="consistent")
        assert entry["Value"] == b"value"
    finally:
        await survivor.close()
