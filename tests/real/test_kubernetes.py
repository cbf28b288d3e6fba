"""Kubernetes: field ownership of server-side apply, and pods that really run what was pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, ContainerPort, HTTPGetAction, PodSpec, PodTemplateSpec, Probe
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod

from deploy.tools import oci
from tests.real.servers.kubernetes import Kubernetes
from tests.real.servers.process import program
from tests.real.servers.registry import Registry
from tests.real.waiting import until

PORT = 8080


@pytest.fixture
async def client(kubernetes: Kubernetes, kubernetes_namespace: str) -> AsyncIterator[AsyncClient]:
    config = KubeConfig.from_file(kubernetes.kubeconfig)
    made = AsyncClient(config=config, namespace=kubernetes_namespace, trust_env=False)
    yield made
    await made.close()


@pytest.fixture
def web_image(registry: Registry, repository: str) -> str:
    """The reference of an image that serves its own name over HTTP."""
    busybox = Path(program("containerd", "busybox")).read_bytes()
    image = oci.image(
        {
            "bin/busybox": busybox,
            "www/index.html": repository.encode(),
        },
        ["/bin/busybox", "httpd", "-f", "-p", str(PORT), "-h", "/www"],
    )
    return registry.push(image, repository, "1")


async def test_two_managers_of_one_field_conflict_until_one_forces(client: AsyncClient) -> None:
    def declared(value: str) -> ConfigMap:
        return ConfigMap(metadata=ObjectMeta(name="weights"), data={"canary": value})

    await client.apply(declared("10"), field_manager="git")
    with pytest.raises(ApiError) as conflict:
        await client.apply(declared("90"), field_manager="gate")
    assert conflict.value.status.code == 409
    assert 'conflict with "git"' in str(conflict.value.status.message)
    await client.apply(declared("90"), field_manager="gate", force=True)
    found = await client.get(ConfigMap, "weights")
    assert found.data == {"canary": "90"}


async def test_a_pod_of_a_deployment_pulls_our_image_runs_and_answers(
    client: AsyncClient,
    kubernetes: Kubernetes,
    kubernetes_namespace: str,
    web_image: str,
    repository: str,
) -> None:
    labels = {"app": "web"}
    container = Container(
        name="web",
        image=web_image,
        ports=[ContainerPort(containerPort=PORT)],
        readinessProbe=Probe(httpGet=HTTPGetAction(path="/", port=PORT), periodSeconds=1),
    )
    spec = DeploymentSpec(
        replicas=2,
        selector=LabelSelector(matchLabels=labels),
        template=PodTemplateSpec(
            metadata=ObjectMeta(labels=labels),
            spec=PodSpec(containers=[container], terminationGracePeriodSeconds=1),
        ),
    )
    await client.apply(Deployment(metadata=ObjectMeta(name="web"), spec=spec), field_manager="tests")
    async with asyncio.timeout(60):
        await client.wait(Deployment, "web", for_conditions=["Available"])
    pods = [pod async for pod in client.list(Pod, labels=labels)]
    assert [pod.status.phase for pod in pods] == ["Running", "Running"]
    for pod in pods:
        page = f"/api/v1/namespaces/{kubernetes_namespace}/pods/{pod.metadata.name}:{PORT}/proxy/"
        assert await asyncio.to_thread(kubernetes.kubectl, "get", "--raw", page) == repository
        assert repository in pod.status.containerStatuses[0].imageID


async def test_what_a_container_prints_is_read_back_as_its_log(client: AsyncClient, web_image: str) -> None:
    container = Container(name="say", image=web_image, command=["/bin/busybox", "echo", "loaded in 3 ms"])
    pod = Pod(metadata=ObjectMeta(name="say"), spec=PodSpec(containers=[container], restartPolicy="Never"))
    await client.create(pod)
    await until(lambda: succeeded(client, "say"))
    lines = [line async for line in client.log("say")]
    assert [line.strip() for line in lines] == ["loaded in 3 ms"]


async def succeeded(client: AsyncClient, name: str) -> bool:
    return (await client.get(Pod, name)).status.phase == "Succeeded"
