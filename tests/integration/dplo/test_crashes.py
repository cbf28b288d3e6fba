"""`kill -9` at every turn: the service carries on, replicas serve on meanwhile, nothing runs twice or is
lost.
"""

import os
import signal

import grpc
import pytest
from chassis import errors, status
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from tests.integration.dplo.stack import Neighbours, declaration, replica_pids, running_dplo
from tests.integration.dplo.traffic import Load

pb = deployment_service_pb2
COMPLETE = deployment_pb2.ROLLOUT_STATE_COMPLETE

FIRST_POINTS = ("starting_replica", "started_replica", "shift_traffic")
CHANGE_POINTS = ("place_replica", "stop_replica")


async def test_killed_at_each_step_it_carries_on_and_no_replica_runs_twice(neighbours: Neighbours) -> None:
    """The operation that was begun first is still there at the end, and says so."""
    await neighbours.upload("kill", "1", "2")
    operation = None
    for point in FIRST_POINTS:
        fresh = operation is None
        async with running_dplo(neighbours, {"DPLO_FAULT_POINT": point}, wait=fresh) as dplo:
            if operation is None:
                operation = await dplo.apply(declaration("kill", {"1": 100}))
            assert await dplo.process.wait(30) == -signal.SIGKILL, point + dplo.process.log()
        assert len(replica_pids(neighbours.folder)) <= 1
    async with running_dplo(neighbours) as dplo:
        deployment = await dplo.wait(operation)
        assert deployment.rollout_progress.state == COMPLETE
        assert deployment.revision.endswith("/revisions/1")
        first = replica_pids(neighbours.folder)
        assert len(first) == 1
        assert (
            sorted(int(r.cluster_reference.split()[1]) for r in deployment.observed_versions[0].replicas)
            == first
        )
        assert all(r.restarts == 0 for r in deployment.observed_versions[0].replicas)


async def test_replicas_serve_on_without_the_service_and_a_change_under_kills_loses_no_request(
    neighbours: Neighbours,
) -> None:
    await neighbours.upload("serve", "1", "2")
    async with running_dplo(neighbours) as dplo:
        await dplo.wait(await dplo.apply(declaration("serve", {"1": 100})))
    first = replica_pids(neighbours.folder)
    assert len(first) == 1
    async with Load(neighbours, "serve") as load:
        await load.requests(20)
        async with running_dplo(neighbours, {"DPLO_FAULT_POINT": CHANGE_POINTS[0]}) as dplo:
            seen = await dplo.get("serve")
            adopted = sorted(int(r.cluster_reference.split()[1]) for r in seen.observed_versions[0].replicas)
            assert adopted == first
            operation = await dplo.apply(declaration("serve", {"2": 100}))
            assert await dplo.process.wait(30) == -signal.SIGKILL
        for point in CHANGE_POINTS[1:]:
            async with running_dplo(neighbours, {"DPLO_FAULT_POINT": point}, wait=False) as dplo:
                assert await dplo.process.wait(60) == -signal.SIGKILL, point + dplo.process.log()
        async with running_dplo(neighbours) as dplo:
            deployment = await dplo.wait(operation)
            await load.requests(20)
    assert deployment.rollout_progress.state == COMPLETE
    assert load.failures == []
    assert {answer for answer in load.answers if answer != 0.0} == {1.0, 2.0}
    second = replica_pids(neighbours.folder)
    assert len(second) == 1
    assert not set(first) & set(second)


async def test_a_replica_that_is_killed_is_started_again_under_load(neighbours: Neighbours) -> None:
    await neighbours.upload("again", "1")
    async with running_dplo(neighbours) as dplo, Load(neighbours, "again") as load:
        await dplo.wait(await dplo.apply(declaration("again", {"1": 100}, replicas=2)))
        await load.requests(20)
        victim, other = replica_pids(neighbours.folder)
        os.kill(victim, signal.SIGKILL)
        deployment = await dplo.until(
            "again",
            lambda d: (
                [v.ready_replicas for v in d.observed_versions] == [2]
                and any(r.restarts == 1 for r in d.observed_versions[0].replicas)
            ),
        )
        await load.requests(20)
        assert deployment.rollout_progress.state == COMPLETE
        pids = replica_pids(neighbours.folder)
        assert len(pids) == 2
        assert other in pids
        assert victim not in pids
        assert load.failures == []


async def test_a_gateway_that_is_away_is_told_and_waited_for(neighbours: Neighbours) -> None:
    await neighbours.upload("away", "1")
    free = {"DPLO_GATEWAY__ADDRESS": "127.0.0.1:1"}
    async with running_dplo(neighbours, free) as dplo:
        await dplo.apply(declaration("away", {"1": 100}))
        seen = await dplo.until(
            "away", lambda d: any(c.reason == "GATEWAY_UNREACHABLE" for c in d.conditions)
        )
        reachable = next(c for c in seen.conditions if c.type == "GatewayReachable")
        assert "127.0.0.1:1" in reachable.message
        assert seen.reconciling


async def test_bad_declarations_are_refused_by_line_and_field(neighbours: Neighbours) -> None:
    await neighbours.upload("wrong", "1")
    good = declaration("wrong", {"1": 100}, split=False)
    digest = f"packages/1, digest: 'sha256:{'0' * 64}'}}"
    cases: list[tuple[str, str, type[errors.Error], str, str]] = [
        ("replicas: 1", "replcas: 1", errors.InvalidArgument, "versions[0].replcas", "plus.yaml:5:5"),
        ("packages/1}", "packages/77}", errors.NotFound, "versions[0].package.package", "plus.yaml:4:15"),
        (
            "versions:",
            "traffic: [{version: '1', percent: 9}]\nversions:",
            errors.InvalidArgument,
            "traffic",
            "plus.yaml:3:1",
        ),
        ("packages/1}", digest, errors.FailedPrecondition, "versions[0].package.digest", "plus.yaml:4:"),
    ]
    async with running_dplo(neighbours) as dplo:
        for before, after, kind, field, place in cases:
            text = pb.Declaration(filename="plus.yaml", content=good.replace(before, after))
            for call, request in (
                (dplo.stub.PlanDeployment, pb.PlanDeploymentRequest(declaration=text)),
                (dplo.stub.ApplyDeployment, pb.ApplyDeploymentRequest(declaration=text)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(request)
                error = status.from_rpc_error(raised.value)
                assert type(error) is kind
                assert error.violations[0].field == field
                assert error.violations[0].description.startswith(place)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dplo.get("wrong")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
