"""Redis: scripts that are atomic across clients, and streams whose pending work another takes over."""

from __future__ import annotations

import asyncio

from redis import asyncio as redis_asyncio

from tests.real.servers.redis import Redis

TAKE = """
local left = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
if left < 1 then return 0 end
redis.call('SET', KEYS[1], left - 1)
return 1
"""


async def test_many_clients_never_take_more_tokens_than_there_are(redis: Redis, redis_prefix: str) -> None:
    clients = [redis_asyncio.from_url(redis.url) for _ in range(10)]
    try:
        take = clients[0].register_script(TAKE)
        taken = await asyncio.gather(
            *(take(keys=[redis_prefix + "bucket"], args=[25], client=client) for client in clients * 10)
        )
        assert sum(taken) == 25
    finally:
        for client in clients:
            await client.aclose()


async def test_work_of_a_consumer_that_went_away_is_claimed_by_another(
    redis: Redis, redis_prefix: str
) -> None:
    stream = redis_prefix + "jobs"
    async with redis_asyncio.from_url(redis.url, decode_responses=True) as client:
        await client.xgroup_create(stream, "workers", id="0", mkstream=True)
        job = await client.xadd(stream, {"name": "projects/p/jobs/1"})
        await client.xreadgroup("workers", "gone", {stream: ">"})
        assert [
            entry["consumer"] for entry in await client.xpending_range(stream, "workers", "-", "+", 10)
        ] == ["gone"]
        claimed = await client.xautoclaim(stream, "workers", "heir", min_idle_time=0)
        assert [entry[0] for entry in claimed[1]] == [job]
        assert await client.xack(stream, "workers", job) == 1
        assert (await client.xpending(stream, "workers"))["pending"] == 0
