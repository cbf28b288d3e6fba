"""Inference over HTTP through a real gateway to real replicas."""

import asyncio
from collections import Counter

import aiohttp
import pytest
from aigw.settings import AigwSettings
from yarl import URL


@pytest.fixture
async def replicas(running_gateway, start_replica):
    found = [await start_replica("a", "1"), await start_replica("b", "1"), await start_replica("c", "2")]
    await running_gateway.route(("1", 9), ("2", 1))
    for replica in found:
        await running_gateway.register(replica)
    return found


async def test_inference_over_rest(running_gateway, replicas) -> None:
    answers = [await running_gateway.infer_rest() for _ in range(20)]
    assert Counter(body["id"] for _, body in answers) == {"a": 9, "b": 9, "c": 2}  # split by weight, in turn
    named = "/v2/models/digits/classifier/versions/2/infer"
    assert (await running_gateway.infer_rest(named))[1] == {"model_version": "2", "id": "c"}

    # A name in one path segment goes on in one path segment.
    encoded = "/v2/models/digits%2Fclassifier/infer"
    url = URL(running_gateway.url + encoded + "?x=%20y", encoded=True)
    async with running_gateway.http.post(url, json={}, headers={"x-tenant": "blue"}) as response:
        assert response.status == 200
        by = {"a": 0, "b": 1, "c": 2}[(await response.json())["id"]]
    assert replicas[by].paths[-1] == encoded + "?x=%20y"
    assert replicas[by].headers[-1]["x-tenant"] == "blue"
    assert replicas[by].headers[-1]["host"] == replicas[by].http_address

    # Binary tensors: the header with the length of the JSON part goes both ways, the body as it is.
    payload = b'{"inputs":[]}' + bytes(range(256)) * 100
    headers = {"Inference-Header-Content-Length": "13", "Content-Type": "application/octet-stream"}
    async with running_gateway.http.post(
        running_gateway.url + "/v2/models/digits/classifier/infer", data=payload, headers=headers
    ) as response:
        assert await response.read() == payload
        assert response.headers["Inference-Header-Content-Length"] == "13"
        assert response.headers["Content-Type"] == "application/octet-stream"

    # An error of the replica arrives in its own words, whether it is the caller's fault or the replica's.
    for status in (400, 500):
        found, body = await running_gateway.infer_rest(id=f"abort:{status}")
        assert found == status
        assert body["error"].endswith(f"says abort:{status}")


async def test_a_missed_deadline_is_told(running_gateway, replicas) -> None:
    async with running_gateway.http.post(
        running_gateway.url + "/v2/models/digits/classifier/infer",
        json={"id": "sleep:30"},
        headers={"Grpc-Timeout": "200m"},
    ) as response:
        assert response.status == 504
        body = await response.json()
    assert body["status"]["details"][0]["reason"] == "UPSTREAM_TIMEOUT"


async def test_replicas_without_http_are_left_to_grpc(running_gateway, start_replica) -> None:
    await running_gateway.route(("1", 1))
    first, second = await start_replica("a"), await start_replica("b")
    first.http_address = ""
    await running_gateway.register(first)
    status, body = await running_gateway.infer_rest()
    assert (status, "answers REST" in body["error"]) == (503, True)
    await running_gateway.register(second)
    assert {(await running_gateway.infer_rest())[1]["id"] for _ in range(4)} == {"b"}
    assert {(await running_gateway.infer()).id for _ in range(4)} == {"a", "b"}


async def test_the_rest_face_beside_inference(
    start_gateway, aigw_settings: AigwSettings, start_replica
) -> None:
    small = aigw_settings.model_copy(
        update={"limits": aigw_settings.limits.model_copy(update={"max_body_bytes": 1000})}
    )
    async with start_gateway(small) as gateway:

        async def get(path: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
            async with gateway.http.request(method, gateway.url + path, data=data) as response:
                return response.status, await response.text()

        await gateway.route(("1", 1))
        await gateway.register(await start_replica("a"))
        await gateway.infer_rest()
        assert (await get("/v2"))[0] == 200
        assert (await get("/v2/health/ready"))[0] == 200
        assert (await get("/readyz"))[0] == 200
        status, text = await get("/v2/models/digits/classifier/infer", "POST", b"x" * 1001)
        assert (status, "1000 bytes" in text) == (413, True)
        status, text = await get("/v2/models/digits/other/infer", "POST", b"{}")
        assert (status, "routed models: digits/classifier" in text) == (404, True)
        status, text = await get("/metrics")
        assert 'aigw_requests_total{code="OK",model="digits/classifier",version="1"} 1.0' in text
        assert 'aigw_endpoints{model="digits/classifier",state="ready",version="1"} 1.0' in text
        status, text = await get("/openapi.json")
        assert (status, "/v1/projects/{project}/routes" in text) == (200, True)
        assert "/v2/models/{project}/{model}/versions/{version}/infer" in text
        status, text = await get("/v1/projects/digits/routes/classifier:queryTraffic")
        assert (status, '"requests":"1"' in text.replace(" ", "")) == (200, True)


async def test_a_caller_that_goes_away_stops_the_replica(running_gateway, start_replica) -> None:
    replica = await start_replica("a")
    await running_gateway.route(("1", 1))
    await running_gateway.register(replica)
    with pytest.raises(TimeoutError):
        async with running_gateway.http.post(
            running_gateway.url + "/v2/models/digits/classifier/infer",
            json={"id": "sleep:30"},
            timeout=aiohttp.ClientTimeout(total=0.5),
        ):
            pass
    async with asyncio.timeout(5):
        while not replica.cancelled:  # noqa: ASYNC110 - the replica's own count
            await asyncio.sleep(0.005)
