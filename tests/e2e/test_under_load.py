"""What callers notice of changes and of failures: nothing."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest
from penstock.dplo.v1 import deployment_pb2
from penstock_client import AsyncClient, Client
from penstock_client.deployments import Deployment

from deploy.digits import INPUT, NEW, OLD, Digits
from tests.e2e.conftest import Stack
from tests.e2e.load import load

COMPLETE = deployment_pb2.ROLLOUT_STATE_COMPLETE


async def until(look: Callable[[], object], what: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(look):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.05)


def replicas(deployment: Deployment) -> list[deployment_pb2.Replica]:
    return [replica for version in deployment.observed_versions for replica in version.replicas]


async def test_no_request_fails_while_a_version_takes_over_and_is_taken_back(
    penstock: Stack, digits: Digits, project: str, declare: Callable[..., dict[str, object]]
) -> None:
    model = f"{project}/classifier"
    async with AsyncClient(penstock.settings) as client:
        await client.deployments.apply(declare(OLD, replicas=2))
        async with load(penstock.settings, model, digits.images[:1]) as seen:
            await seen.more(50, version=OLD)
            steps = [{"percent": 10, "manualPromotion": True}, {"percent": 50}]
            await client.deployments.apply(declare(NEW, replicas=2, steps=steps))
            await seen.more(20, version=NEW)
            await client.deployments.promote(model)
            await seen.more(60)
            found = await client.deployments.get(model)
            assert [v.version for v in found.observed_versions if v.desired_replicas] == [NEW]
            back = await client.deployments.rollback(model)
            await seen.more(60, version=OLD)
        assert back.rollout_progress.state == COMPLETE
    assert seen.failures == []
    assert min(seen.faces["grpc"], seen.faces["rest"]) > 50


async def test_a_killed_replica_is_noticed_by_nobody_and_started_again(
    penstock: Stack, client: Client, digits: Digits, project: str, declare: Callable[..., dict[str, object]]
) -> None:
    model = f"{project}/classifier"
    await asyncio.to_thread(client.deployments.apply, declare(OLD, replicas=2))
    endpoints = await asyncio.to_thread(client.endpoints.list, model)
    assert len(endpoints) == 2
    victim = replicas(await asyncio.to_thread(client.deployments.get, model))[0]
    async with load(penstock.settings, model, digits.images[:1], workers=4) as seen:
        await seen.more(60)
        os.kill(int(victim.cluster_reference.removeprefix("pid ")), signal.SIGKILL)
        await seen.more(150)
        await until(
            lambda: (
                sum(
                    r.state == deployment_pb2.REPLICA_STATE_READY
                    for r in replicas(client.deployments.get(model))
                )
                == 2
                and len(client.endpoints.list(model)) == 2
                and any(r.restarts for r in replicas(client.deployments.get(model)))
            ),
            "two replicas again",
        )
        await seen.more(60)
    print(f"{seen.answered} requests answered, {len(seen.failures)} failed")
    assert seen.failures == []


async def test_dplo_killed_in_the_middle_of_a_rollout_carries_on(
    penstock: Stack, client: Client, digits: Digits, project: str, declare: Callable[..., dict[str, object]]
) -> None:
    model = f"{project}/classifier"
    await asyncio.to_thread(client.deployments.apply, declare(OLD))
    before = {r.cluster_reference for r in replicas(await asyncio.to_thread(client.deployments.get, model))}
    async with load(penstock.settings, model, digits.images[:1], workers=2) as seen:
        await seen.more(10)
        await asyncio.to_thread(client.deployments.apply, declare(NEW, replicas=2), wait=False)
        await asyncio.to_thread(penstock.kill, "dplo")
        await seen.more(50)
        await asyncio.to_thread(penstock.restart)
        with Client(penstock.settings) as again:
            await until(
                lambda: again.deployments.get(model).rollout_progress.state == COMPLETE,
                "the rollout complete",
            )
            found = again.deployments.get(model)
        await seen.more(50, version=NEW)
    assert seen.failures == []
    assert {r.version for r in replicas(found)} == {NEW}
    assert len(replicas(found)) == 2
    assert before.isdisjoint(r.cluster_reference for r in replicas(found))


async def test_replicas_outlive_a_killed_dplo_and_are_taken_over_again(
    penstock: Stack, client: Client, project: str, declare: Callable[..., dict[str, object]]
) -> None:
    model = f"{project}/classifier"
    await asyncio.to_thread(client.deployments.apply, declare(OLD, replicas=2))
    before = sorted(
        r.cluster_reference for r in replicas(await asyncio.to_thread(client.deployments.get, model))
    )

    await asyncio.to_thread(penstock.kill, "dplo")
    await asyncio.to_thread(penstock.restart)

    with Client(penstock.settings) as again:
        await until(lambda: not again.deployments.get(model).reconciling, "the deployment settled")
        after = sorted(r.cluster_reference for r in replicas(again.deployments.get(model)))
    assert after == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_gateway_that_comes_back_routes_as_before(
    penstock: Stack,
    client: Client,
    digits: Digits,
    project: str,
    declare: Callable[..., dict[str, object]],
    number: signal.Signals,
) -> None:
    model = f"{project}/classifier"
    await asyncio.to_thread(client.deployments.apply, declare(OLD))
    generation = (await asyncio.to_thread(client.routes.get, model)).generation

    await asyncio.to_thread(penstock.kill, "aigw", number)
    await asyncio.to_thread(penstock.restart)

    def answers() -> bool:
        with Client(penstock.settings) as again:
            assert again.routes.get(model).generation == generation
            return len(again.endpoints.list(model)) == 1

    await until(answers, "the replica is registered again")
    async with AsyncClient(penstock.settings) as again:
        for face in ("grpc", "rest"):
            answer = await again.predict(model, {INPUT: digits.images[:1]}, face=face)
            assert answer.version == OLD
