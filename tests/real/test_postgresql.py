"""PostgreSQL: advisory locks, by which one of several replicas leads."""

from __future__ import annotations

import asyncio

import asyncpg

LOCK = 20201122


async def test_an_advisory_lock_is_handed_over_when_its_holder_is_cut_off(database_url: str) -> None:
    leader, follower, operator = [await asyncpg.connect(database_url) for _ in range(3)]
    try:
        assert await leader.fetchval("SELECT pg_try_advisory_lock($1)", LOCK)
        assert not await follower.fetchval("SELECT pg_try_advisory_lock($1)", LOCK)
        waiting = asyncio.create_task(follower.execute("SELECT pg_advisory_lock($1)", LOCK))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done, "two sessions hold the same lock"
        await operator.execute("SELECT pg_terminate_backend($1)", leader.get_server_pid())
        await asyncio.wait_for(waiting, 10)
        holder = await operator.fetchval("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
        assert holder == follower.get_server_pid()
    finally:
        for connection in (leader, follower, operator):
            connection.terminate()


async def test_a_test_has_its_database_to_itself(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert tables == 0
    finally:
        await connection.close()
