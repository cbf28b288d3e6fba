"""Rollouts with real replicas, a real gateway and a real package service."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request

import pytest
from chassis import errors
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2

from tests.integration.dplo.stack import Neighbours, declaration, replica_pids, running_dplo

pb = deployment_service_pb2


def ask(neighbours: Neighbours, project: str, value: float) -> float:
    """One prediction through the gateway."""
    url = f"{neighbours.gateway.rest_url}/v2/models/{project}/plus/infer"
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return float(json.loads(response.read())["outputs"][0]["data"][0])


async def test_a_deployment_from_declaration_to_prediction_and_away_again(neighbours: Neighbours) -> None:
    await neighbours.upload("one", "1", "2")
    async with running_dplo(neighbours) as dplo:
        deployment = await dplo.wait(await dplo.apply(declaration("one", {"1": 100}), author="ada"))
        assert deployment.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_COMPLETE
        assert [v.ready_replicas for v in deployment.observed_versions] == [1]
        assert deployment.versions[0].package.digest.startswith("sha256:")
        assert {c.type: c.status for c in deployment.conditions}["Ready"] == 1
        assert ask(neighbours, "one", 1.0) == 2.0
        assert len(replica_pids(neighbours.folder)) == 1

        steps = "rollout: {steps: [{percent: 10, manual_promotion: true}]}\n"
        steps += "policy: {timeout: 30s, retry: {max_attempts: 3, codes: [UNAVAILABLE]}}\n"
        second = await dplo.apply(declaration("one", {"2": 100}, more=steps))
        waiting = await dplo.wait(second)
        assert waiting.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_AWAITING_PROMOTION
        route = await neighbours.route("one")
        assert {t.version: t.weight for t in route.targets} == {"1": 90, "2": 10}
        assert route.policy.timeout.seconds == 30
        answers = [ask(neighbours, "one", 0.0) for _ in range(50)]
        assert answers.count(2.0) == 5

        assert (await neighbours.route("one")).generation == route.generation == 2
        name = deployment.name
        done = await dplo.wait(await dplo.stub.PromoteDeployment(pb.PromoteDeploymentRequest(name=name)))
        assert done.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_COMPLETE
        assert ask(neighbours, "one", 0.0) == 2.0
        assert len(replica_pids(neighbours.folder)) == 1

        back = await dplo.wait(await dplo.stub.RollbackDeployment(pb.RollbackDeploymentRequest(name=name)))
        assert ask(neighbours, "one", 0.0) == 1.0
        assert back.revision == f"{name}/revisions/3"
        history = await dplo.stub.ListRevisions(pb.ListRevisionsRequest(parent=name))
        assert [r.state for r in history.revisions] == [deployment_pb2.ROLLOUT_STATE_COMPLETE] * 3
        assert history.revisions[0].restored_revision == f"{name}/revisions/1"
        assert history.revisions[2].author == "ada"

        drift = await dplo.stub.GetDeploymentDrift(pb.GetDeploymentDriftRequest(name=name))
        assert [h.state for h in drift.hops] == [
            deployment_pb2.DRIFT_STATE_NOT_APPLICABLE,
            *[deployment_pb2.DRIFT_STATE_IN_SYNC] * 3,
        ]
        replica = back.observed_versions[0].replicas[0]
        logs = await dplo.stub.GetReplicaLogs(pb.GetReplicaLogsRequest(name=replica.name))
        assert any("serving" in line for line in logs.lines)

        await dplo.stub.DeleteDeployment(pb.DeleteDeploymentRequest(name=name))
        async for answer in dplo.stub.WatchDeployment(pb.WatchDeploymentRequest(name=name)):
            last = answer
        assert last.event.type == pb.DEPLOYMENT_EVENT_TYPE_DELETED
        assert replica_pids(neighbours.folder) == []
        assert await neighbours.endpoints("one") == []


async def test_a_version_that_cannot_load_or_answer_is_rolled_back_and_says_why(
    neighbours: Neighbours,
) -> None:
    await neighbours.upload("bad", "1", "2", "3")
    async with running_dplo(neighbours) as dplo:
        first = await dplo.wait(await dplo.apply(declaration("bad", {"1": 100})))
        broken = declaration("bad", {"2": 100}).replace(
            "    replicas: 1\n", "    replicas: 1\n    environment: {FAIL_TO_LOAD: 'yes'}\n"
        )
        with pytest.raises(errors.Aborted, match="rolled back") as raised:
            await dplo.wait(await dplo.apply(broken))
        assert "no weights for this planet" in str(raised.value)
        await dplo.until("bad", lambda d: d.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_COMPLETE)
        assert ask(neighbours, "bad", 1.0) == 2.0
        history = await dplo.stub.ListRevisions(pb.ListRevisionsRequest(parent=first.name))
        assert [r.cause for r in history.revisions] == [
            deployment_pb2.REVISION_CAUSE_AUTOMATIC_ROLLBACK,
            deployment_pb2.REVISION_CAUSE_APPLY,
            deployment_pb2.REVISION_CAUSE_APPLY,
        ]
        assert history.revisions[1].state == deployment_pb2.ROLLOUT_STATE_ROLLED_BACK

        gate = "gate: {max_error_rate: 0.2, min_requests: 4, window: 60s}"
        failing = declaration("bad", {"3": 100}, more=f"rollout: {{steps: [{{percent: 50}}], {gate}}}\n")
        environment = "    replicas: 1\n    environment: {FAIL_TO_RUN: 'yes'}\n"
        operation = await dplo.apply(failing.replace("    replicas: 1\n", environment))
        await dplo.until("bad", lambda d: d.rollout_progress.percent == 50)
        for _ in range(200):
            with contextlib.suppress(urllib.error.HTTPError):
                await asyncio.to_thread(ask, neighbours, "bad", 1.0)
            if (await dplo.get("bad")).rollout_progress.percent != 50:
                break
        with pytest.raises(errors.Aborted, match="requests failed"):
            await dplo.wait(operation)
        await dplo.until("bad", lambda d: d.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_COMPLETE)
        assert [ask(neighbours, "bad", 1.0) for _ in range(4)] == [2.0] * 4
