"""The REST face of inference: which paths there are, what goes through untouched, how errors look."""

import asyncio
from typing import Any

import orjson
import pytest
from aigw.api.rest_inference import RestInference
from aigw.domain.health import Failure
from chassis.errors import Code
from chassis.server.body_limit import LimitedRoute


class Caller:
    """Calls the ASGI route as an HTTP server would."""

    def __init__(self, route: RestInference) -> None:
        self._route = route

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        chunks: list[bytes] | None = None,
        raw: str | None = None,
        query: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        parts = chunks if chunks is not None else [body]
        messages = [
            {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
            for index, part in enumerate(parts)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": (raw or path).encode(),
            "query_string": query,
            "headers": [(key.encode(), value.encode()) for key, value in (headers or {}).items()],
        }
        await self._route.handle(scope, receive, send)
        start = sent[0]
        told = {key.decode(): value.decode() for key, value in start["headers"]}
        return start["status"], told, b"".join(message["body"] for message in sent[1:])


@pytest.fixture
async def call(gateway) -> Caller:
    await gateway.route(("1", 1))
    await gateway.register("a")
    return Caller(
        LimitedRoute(
            RestInference(
                gateway.router, gateway.forwarder, clock=gateway.clock, name="penstock-aigw", version="9"
            ),
            1000,
        )
    )


@pytest.mark.parametrize(
    ("method", "path", "version"),
    [
        pytest.param("POST", "/v2/models/digits/classifier/infer", "", id="infer"),
        pytest.param("POST", "/v2/models/digits/classifier/versions/1/infer", "1", id="infer of a version"),
        pytest.param("GET", "/v2/models/digits/classifier", "", id="metadata"),
        pytest.param("GET", "/v2/models/digits/classifier/", "", id="trailing slash"),
        pytest.param("GET", "/v2/models/digits/classifier/ready", "", id="ready"),
        pytest.param("GET", "/v2/models/digits/classifier/config", "", id="config"),
        pytest.param("GET", "/v2/models/digits/classifier/versions/1/stats", "1", id="stats"),
        pytest.param("HEAD", "/v2/models/digits/classifier/ready", "", id="HEAD"),
    ],
)
async def test_model_paths_are_forwarded(gateway, call, method, path, version) -> None:
    status, headers, body = await call(method, path, b"[]" if method == "POST" else b"")
    assert (status, headers["x-replica"], body) == (200, "a", b"a")


async def test_body_headers_path_and_query_go_through_as_they_are(gateway, call) -> None:
    targets = []
    replica = gateway.replicas["a"]
    original = replica.send

    async def send(method, target, payload, *, headers=(), deadline=None):  # type: ignore[no-untyped-def]
        targets.append((method, target))
        return await original(method, target, payload, headers=headers, deadline=deadline)

    replica.send = send
    await call(
        "POST",
        "/v2/models/digits/classifier/infer",
        chunks=[b"{\x00", b"\xff}"],
        raw="/v2/models/digits%2Fclassifier/infer",
        query=b"a=%20b",
        headers={"inference-header-content-length": "2", "content-type": "application/octet-stream"},
    )
    assert targets == [("POST", "/v2/models/digits%2Fclassifier/infer?a=%20b")]
    assert replica.calls == [b"{\x00\xff}"]
    assert ("inference-header-content-length", "2") in replica.metadata[0]


async def test_a_client_error_of_the_replica_is_passed_on_and_counted_as_such(gateway, call) -> None:
    gateway.replicas["a"].http_status = 400
    status, headers, body = await call("POST", "/v2/models/digits/classifier/infer", b"{}")
    assert (status, headers["x-replica"], body) == (400, "a", b"a")
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.INVALID_ARGUMENT: 1}


async def test_a_replica_that_answers_503_is_replaced_by_another(gateway, call) -> None:
    await gateway.register("b")
    gateway.replicas["a"].http_status = 503
    answers = [(await call("POST", "/v2/models/digits/classifier/infer", b"{}"))[2] for _ in range(6)]
    assert set(answers) == {b"b"}


@pytest.mark.parametrize("status", [500, 503, 504, 429])
async def test_if_no_replica_does_better_the_last_ones_own_words_are_the_answer(
    gateway, call, status
) -> None:
    gateway.replicas["a"].http_status = status
    assert (await call("POST", "/v2/models/digits/classifier/infer", b"{}"))[0::2] == (status, b"a")


async def test_both_faces_share_the_health_of_a_replica(gateway, call) -> None:
    await gateway.register("b")
    gateway.router.attempt_failed(
        gateway.router.find("digits/classifier"),
        gateway.router.replica("digits/classifier", "a"),
        Failure.UNREACHABLE,
    )
    answers = [(await call("POST", "/v2/models/digits/classifier/infer", b"{}"))[2] for _ in range(4)]
    assert set(answers) == {b"b"}
    assert set(await gateway.infer_many(4)) == {"b"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        pytest.param(
            "GET", "/v2/models/digits/nothing", b"", 404, "routed models: digits/classifier", id="model"
        ),
        pytest.param("GET", "/v2/models/classifier", b"", 404, "named project/model", id="no project"),
        pytest.param(
            "GET", "/v2/models/digits/classifier/versions/7", b"", 404, "its versions: 1", id="version"
        ),
        pytest.param("GET", "/v2/models/digits/classifier/infer", b"", 405, "use POST", id="verb"),
        pytest.param("POST", "/v2/models/digits/classifier/ready", b"", 405, "use GET", id="other verb"),
        pytest.param("DELETE", "/v2", b"", 405, "use GET", id="verb of the server"),
        pytest.param("GET", "/v2/nothing", b"", 404, "paths are", id="path"),
        pytest.param("GET", "/v2/models/digits/classifier/nothing", b"", 404, "paths are", id="action"),
        pytest.param(
            "POST", "/v2/models/digits/classifier/infer", b"x" * 1001, 413, "1000 bytes", id="too large"
        ),
        pytest.param("POST", "/v2/repository/index", b"{", 400, "not JSON", id="malformed JSON"),
    ],
)
async def test_errors_have_the_protocols_form_and_a_status(call, method, path, body, status, text) -> None:
    found, headers, answer = await call(method, path, body)
    told = orjson.loads(answer)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert text in told["error"]
    assert told["status"]["message"] == told["error"]
    assert told["status"]["details"][0]["domain"] == "penstock.dev"
    if status == 405:
        assert headers["allow"] in text


async def test_a_body_is_refused_by_its_announced_length_and_by_what_really_comes(call) -> None:
    path = "/v2/models/digits/classifier/infer"
    assert (await call("POST", path, b"", {"content-length": "1001"}))[0] == 413
    assert (await call("POST", path, chunks=[b"x" * 600, b"x" * 600]))[0] == 413
    assert (await call("POST", path, chunks=[b"x" * 500, b"x" * 500]))[0] == 200


async def test_a_deadline_header_is_obeyed_and_a_wrong_one_refused(gateway, call) -> None:
    path = "/v2/models/digits/classifier/infer"
    status, _, body = await call("POST", path, b"{}", {"grpc-timeout": "0m"})
    assert (status, orjson.loads(body)["status"]["code"]) == (504, Code.DEADLINE_EXCEEDED.value)
    assert (await call("POST", path, b"{}", {"grpc-timeout": "soon"}))[0] == 400
    assert (await call("POST", path, b"{}", {"grpc-timeout": "5S"}))[0] == 200


async def test_without_a_ready_replica_the_caller_is_told_when_to_try_again(gateway, call) -> None:
    await gateway.registry.deregister("projects/digits/models/classifier/endpoints/a")
    status, headers, _ = await call("POST", "/v2/models/digits/classifier/infer", b"{}")
    assert (status, headers["retry-after"]) == (503, "1")


async def test_the_gateway_speaks_for_itself(gateway, call) -> None:
    status, _, body = await call("GET", "/v2")
    assert (status, orjson.loads(body)["name"], orjson.loads(body)["version"]) == (200, "penstock-aigw", "9")
    assert (await call("GET", "/v2/health/live"))[0] == 200
    assert (await call("GET", "/v2/health/ready"))[0] == 200


async def test_the_index_tells_all_versions_of_all_models(gateway, call) -> None:
    await gateway.catalog.set_weights("digits", "classifier", {"1": 1, "2": 1}, gateway_change())
    _, _, body = await call("POST", "/v2/repository/index")
    assert [(m["name"], m["version"], m["state"]) for m in orjson.loads(body)] == [
        ("digits/classifier", "1", "READY"),
        ("digits/classifier", "2", "UNAVAILABLE"),
    ]
    _, _, body = await call("POST", "/v2/repository/index", b'{"ready": true}')
    assert [m["version"] for m in orjson.loads(body)] == ["1"]


async def test_a_caller_that_goes_away_within_its_body_is_no_unexpected_error(gateway, call) -> None:
    assert (await call("POST", "/v2/models/digits/classifier/infer", chunks=[]))[0] == 499


async def test_calls_refused_before_routing_are_in_the_log_too(gateway, call) -> None:
    await call("POST", "/v2/models/digits/classifier/infer", b"x" * 1001)
    await gateway.access_log.flush_once()
    assert b"BODY_TOO_LARGE" in gateway.sink.lines[0]


def gateway_change() -> Any:
    from aigw.domain.route import Change

    return Change()


async def test_a_caller_that_goes_away_stops_the_replica(gateway, call) -> None:
    stopped = asyncio.Event()

    async def forever(payload: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return b""

    gateway.replicas["a"].behaviour = forever
    # The fake caller is gone once its body was read, which the gateway notices after a quarter of a second.
    assert (await call("POST", "/v2/models/digits/classifier/infer", b"{}"))[0] == 499
    assert stopped.is_set()
    assert gateway.traffic.series("digits/classifier", "1").total.codes == {Code.CANCELLED: 1}
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
