"""The service as its callers see it, over gRPC and REST, with no neighbour running."""

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from chassis import errors, status
from chassis.settings import ChannelSettings
from chassis.testing.running import RunningService, running
from dplo.bootstrap import build
from dplo.settings import DploSettings, LocalSettings, PackagesSettings, ReconcileSettings, StoreSettings
from google.longrunning import operations_pb2, operations_pb2_grpc
from penstock.dplo.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    source_service_pb2,
    source_service_pb2_grpc,
)

pb = deployment_service_pb2
WRONG_TARGET = "deployment.traffic[0].version"
MODEL = "projects/digits/models/classifier"
NAME = "projects/digits/deployments/classifier"


def package(folder: Path, version: str) -> str:
    """An archive as `mds build` names it; its content does not matter here. Gives its digest."""
    manifest = json.dumps({"files": [], "version": version}).encode()
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"classifier-{version}.mdspkg", "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest))
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


@pytest.fixture
async def dplo(tmp_path: Path) -> AsyncIterator[RunningService]:
    """Packages from a directory, a gateway that is not there, and replicas that end at once."""
    for version in ("1", "2"):
        package(tmp_path / "packages", version)
    settings = DploSettings(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'dplo.db'}"),
        packages=PackagesSettings(backend="directory", directory=tmp_path / "packages"),
        gateway=ChannelSettings(address="127.0.0.1:1"),
        local=LocalSettings(state_dir=tmp_path / "local", command=("false",), restart_first_delay=0.05),
        reconcile=ReconcileSettings(active_interval=0.05),
    )
    async with running(settings, build, name="dplo") as service:
        yield service


@pytest.fixture
def stub(dplo: RunningService) -> Any:
    return deployment_service_pb2_grpc.DeploymentServiceStub(dplo.channel)


@pytest.fixture
async def rest(dplo: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=dplo.rest_url, trust_env=False) as client:
        yield client


def body(*versions: str) -> dict[str, Any]:
    return {
        "name": NAME,
        "model": MODEL,
        "versions": [{"package": {"package": f"{MODEL}/packages/{v}"}} for v in versions],
    }


async def test_a_plan_over_rest_says_what_would_be_done_and_does_nothing(rest: httpx.AsyncClient) -> None:
    answer = await rest.post(f"/v1/{NAME}:plan", json={"deployment": body("1")})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["creates"]
    assert [a["kind"] for a in plan["actions"]] == [
        "FETCH_PACKAGE",
        "PLACE_REPLICA",
        "WAIT_READY",
        "SHIFT_TRAFFIC",
    ]
    assert plan["deployment"]["versions"][0]["package"]["digest"].startswith("sha256:")
    assert (await rest.get(f"/v1/{NAME}")).status_code == 404


async def test_a_deployment_that_crashes_tells_it_over_rest_with_its_log(
    rest: httpx.AsyncClient, dplo: RunningService
) -> None:
    answer = await rest.post("/v1/deployments:apply", json={"deployment": body("1"), "author": "ada"})
    assert answer.status_code == 200, answer.text
    operation = answer.json()
    assert operation["metadata"]["revision"] == f"{NAME}/revisions/1"
    operations = operations_pb2_grpc.OperationsStub(dplo.channel)
    await operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation["name"]), timeout=30)
    error = (await rest.get(f"/v1/{operation['name']}")).json()["error"]
    assert error["code"] == 9
    assert "ended with exit code 1" in error["message"]
    deployment = (await rest.get(f"/v1/{NAME}")).json()
    assert deployment["rolloutProgress"]["state"] == "ROLLOUT_STATE_FAILED"
    assert deployment["rolloutProgress"]["reason"] == "REPLICA_CRASH_LOOPING"
    replica = deployment["observedVersions"][0]["replicas"][0]
    assert replica["state"] == "REPLICA_STATE_CRASH_LOOPING"
    logs = await rest.get(f"/v1/{replica['name']}/logs")
    assert logs.json()["replica"] == replica["name"]
    revisions = (await rest.get(f"/v1/{NAME}/revisions")).json()["revisions"]
    assert (revisions[0]["author"], revisions[0]["state"]) == ("ada", "ROLLOUT_STATE_FAILED")
    conditions = {c["type"]: c["reason"] for c in deployment["conditions"]}
    assert conditions["GatewayReachable"] == "GATEWAY_UNREACHABLE"


async def test_a_watch_begins_with_the_deployment_and_can_be_resumed(
    rest: httpx.AsyncClient, stub: Any
) -> None:
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("1")))
    first = None
    async for answer in stub.WatchDeployment(pb.WatchDeploymentRequest(name=NAME)):
        first = first or answer
        if answer.HasField("event"):
            break
    assert first is not None
    assert not first.HasField("event")
    assert first.deployment.name == NAME
    resumed = stub.WatchDeployment(pb.WatchDeploymentRequest(name=NAME, resume_token=first.resume_token))
    async for again in resumed:
        assert again.event.message == answer.event.message
        assert again.resume_token == answer.resume_token
        break
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.WatchDeployment(pb.WatchDeploymentRequest(name=NAME, resume_token="x1")):
            pass
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    headers = {"Accept": "text/event-stream"}
    async with rest.stream("GET", f"/v1/{NAME}:watch", headers=headers) as stream:
        lines = stream.aiter_lines()
        data = [line async for line in until_data(lines)]
    assert json.loads(data[-1].removeprefix("data:"))["deployment"]["name"] == NAME


async def until_data(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith("data:"):
            return


def message(*versions: str, **more: Any) -> deployment_pb2.Deployment:
    made = deployment_pb2.Deployment(name=NAME, model=MODEL, **more)
    for version in versions:
        made.versions.add().package.package = f"{MODEL}/packages/{version}"
    return made


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": "digits"}, "INVALID_ARGUMENT", "deployment.name"),
        (
            {"traffic": [{"version": "9", "percent": 100}]},
            "INVALID_ARGUMENT",
            "deployment.traffic[0].version",
        ),
        ({"mirrors": [{"version": "1", "percent": 5}]}, "INVALID_ARGUMENT", "deployment.mirrors"),
        (
            {"versions": [{"package": {"package": f"{MODEL}/packages/9"}}]},
            "NOT_FOUND",
            "deployment.versions[0].package.package",
        ),
        (
            {"rollout": {"gate": {"maxShadowDisagreement": 0.1}, "steps": [{"percent": 5}]}},
            "INVALID_ARGUMENT",
            "deployment.rollout.gate.max_shadow_disagreement",
        ),
    ],
    ids=["name", "unknown version", "mirrors", "unknown package", "shadow gate"],
)
async def test_what_is_wrong_is_told_by_field_of_the_request(
    rest: httpx.AsyncClient, change: dict[str, Any], code: str, field: str
) -> None:
    answer = await rest.post("/v1/deployments:apply", json={"deployment": body("1") | change})
    told = answer.json()
    assert told["code"] == errors.Code[code].value
    violations = next(d for d in told["details"] if "fieldViolations" in d)["fieldViolations"]
    assert field in [v["field"] for v in violations]


async def test_a_stale_etag_is_aborted(stub: Any) -> None:
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("1")))
    before = await stub.GetDeployment(pb.GetDeploymentRequest(name=NAME))
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("2", etag=before.etag)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("1"), etag=before.etag))
    error = status.from_rpc_error(raised.value)
    assert (type(error), error.reason) == (errors.Aborted, "ETAG_MISMATCH")


async def test_lists_come_in_pages(stub: Any, rest: httpx.AsyncClient) -> None:
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("1")))
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("2")))
    first = await stub.ListRevisions(pb.ListRevisionsRequest(parent=NAME, page_size=1))
    second = await stub.ListRevisions(
        pb.ListRevisionsRequest(parent=NAME, page_size=1, page_token=first.next_page_token)
    )
    names = [r.name.rpartition("/")[2] for answer in (first, second) for r in answer.revisions]
    assert (names, second.next_page_token) == (["2", "1"], "")
    listed = (await rest.get("/v1/projects/-/deployments")).json()
    assert [d["name"] for d in listed["deployments"]] == [NAME]
    assert (await rest.get("/v1/projects/other/deployments")).json() == {}


async def test_the_local_cluster_says_what_it_holds(dplo: RunningService) -> None:
    clusters = cluster_service_pb2_grpc.ClusterServiceStub(dplo.channel)
    (local,) = (await clusters.ListClusters(cluster_service_pb2.ListClustersRequest())).clusters
    assert local.name == "clusters/local"
    assert local.capacity.cpu >= 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await clusters.GetCluster(cluster_service_pb2.GetClusterRequest(name="clusters/other"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_this_version_does_not_do_says_so(dplo: RunningService, stub: Any) -> None:
    clusters = cluster_service_pb2_grpc.ClusterServiceStub(dplo.channel)
    sources = source_service_pb2_grpc.SourceServiceStub(dplo.channel)
    calls = [
        clusters.TestCluster(cluster_service_pb2.TestClusterRequest(name="clusters/local")),
        sources.ListSources(source_service_pb2.ListSourcesRequest(parent="projects/digits")),
        sources.GetSource(source_service_pb2.GetSourceRequest(name="projects/digits/sources/git")),
        stub.ListDeployments(pb.ListDeploymentsRequest(parent="projects/digits", filter="x")),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "not available in this version of Penstock" in (raised.value.details() or "")
    tail = stub.TailReplicaLogs(pb.TailReplicaLogsRequest(name=f"{NAME}/replicas/x"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in tail:
            pass
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_replica_that_is_not_there_has_no_log(stub: Any) -> None:
    await stub.ApplyDeployment(pb.ApplyDeploymentRequest(deployment=message("1")))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetReplicaLogs(pb.GetReplicaLogsRequest(name=f"{NAME}/replicas/none"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
