"""`kill -9` at every turn: the service carries on, replicas serve on meanwhile, nothing runs twice or is
lost.
"""

import signal

import grpc
import pytest
from chassis import errors, status
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from tests.integration.dplo.stack import Dplo, Neighbours, declaration, replica_pids, running_dplo
from tests.integration.dplo.traffic import Load

pb = deployment_service_pb2
COMPLETE = deployment_pb2.ROLLOUT_STATE_COMPLETE

FIRST_POINTS = ("starting_replica", "started_replica", "shift_traffic")


async def killed(dplo: Dplo, point: str) -> None:
    """Waits until the service was killed at the point that it was started with."""
    assert await dplo.process.wait(60) == -signal.SIGKILL, point + dplo.process.log()


async def test_killed_at_each_step_it_carries_on_and_no_request_is_lost(neighbours: Neighbours) -> None:
    """A first deployment and a change of it; the service is killed five times, callers are served on."""
    await neighbours.upload("kill", "1", "2")
    first = None
    for point in FIRST_POINTS:
        begins = first is None
        async with running_dplo(neighbours, {"DPLO_FAULT_POINT": point}, wait=begins) as dplo:
            first = first or await dplo.apply(declaration("kill", {"1": 100}))
            await killed(dplo, point)
        assert len(replica_pids(neighbours.folder)) <= 1, "a replica runs twice"
    assert first is not None
    async with Load(neighbours, "kill") as load:
        async with running_dplo(neighbours, {"DPLO_FAULT_POINT": "place_replica"}) as dplo:
            deployment = await dplo.wait(first)
            assert deployment.rollout_progress.state == COMPLETE
            (replica,) = deployment.observed_versions[0].replicas
            (before,) = replica_pids(neighbours.folder)
            assert (replica.cluster_reference, replica.restarts) == (f"pid {before}", 0)
            await load.requests(20)
            second = await dplo.apply(declaration("kill", {"2": 100}))
            await killed(dplo, "place_replica")
        async with running_dplo(neighbours, {"DPLO_FAULT_POINT": "stop_replica"}, wait=False) as dplo:
            await killed(dplo, "stop_replica")
        async with running_dplo(neighbours) as dplo:
            deployment = await dplo.wait(second)
            await load.requests(20)
    assert deployment.rollout_progress.state == COMPLETE
    assert load.failures == []
    assert set(load.answers) == {1.0, 2.0}
    (after,) = replica_pids(neighbours.folder)
    assert after != before


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
