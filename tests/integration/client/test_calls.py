"""The client against a real gRPC server: retries, deadlines, credentials, trace context, both faces."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from penstock.dplo.v1 import deployment_pb2
from penstock_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    DeadlineExceeded,
    DigestMismatch,
    FailedPrecondition,
    InvalidArgument,
    PenstockError,
    RetryPolicy,
    RolloutFailed,
    Settings,
    Unavailable,
)
from penstock_client.prediction import InferRequest

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FAST = RetryPolicy(attempts=3, initial_delay=0.001)


async def test_a_call_that_changes_nothing_is_tried_again(client: AsyncClient, script) -> None:
    script.failures.extend([UNAVAILABLE, UNAVAILABLE])

    assert (await client.routes.get("d/c")).name == "projects/d/routes/c"
    assert script.calls == ["GetRoute"] * 3


async def test_a_call_that_changes_something_is_not(client: AsyncClient, script) -> None:
    script.failures.append(UNAVAILABLE)

    with pytest.raises(Unavailable, match="as the script says"):
        await client.routes.set_weights("d/c", {"1": 1})
    assert script.calls == ["SetWeights"]


async def test_attempts_are_limited(client: AsyncClient, script) -> None:
    script.failures.extend([UNAVAILABLE] * 9)

    with pytest.raises(Unavailable):
        await client.routes.get("d/c")
    assert len(script.calls) == 3


async def test_other_errors_are_not_tried_again(client: AsyncClient, script) -> None:
    script.failures.append(grpc.StatusCode.ALREADY_EXISTS)

    with pytest.raises(AlreadyExists) as caught:
        await client.routes.get("d/c")
    assert len(script.calls) == 1
    assert caught.value.origin == f"AIGW at {client.settings.aigw.grpc}"


async def test_a_deadline_is_kept_across_attempts(settings: Settings, script) -> None:
    script.failures.extend([UNAVAILABLE] * 99)
    patient = RetryPolicy(attempts=99, initial_delay=0.05, multiplier=1)

    async with AsyncClient(replace(settings, timeout=0.3), retry=patient) as client:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.routes.get("d/c")
    assert 2 <= len(script.calls) <= 12


async def test_a_server_that_is_not_there_is_named() -> None:
    settings = Settings(timeout=0.5)
    settings = replace(settings, aigw=replace(settings.aigw, grpc="127.0.0.1:1"))

    async with AsyncClient(settings, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises((Unavailable, DeadlineExceeded), match=r"AIGW at 127\.0\.0\.1:1"):
            await client.routes.get("d/c")


async def test_a_token_file_is_read_again_when_it_changes(settings: Settings, script, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")

    async with AsyncClient(replace(settings, token_file=token)) as client:
        await client.routes.get("d/c")
        token.write_text("second, longer\n")
        await client.routes.get("d/c")

    assert [m["authorization"] for m in script.metadata] == ["Bearer first", "Bearer second, longer"]


async def test_a_missing_token_file_is_named(settings: Settings, tmp_path: Path) -> None:
    async with AsyncClient(replace(settings, token_file=tmp_path / "none")) as client:
        with pytest.raises(InvalidArgument, match="none"):
            await client.routes.get("d/c")


async def test_the_trace_goes_on_in_the_server(settings: Settings, script) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    script.failures.append(UNAVAILABLE)

    async with AsyncClient(settings, retry=FAST, tracer_provider=provider) as client:
        with provider.get_tracer("app").start_as_current_span("app"):
            await client.routes.get("d/c")

    call, app = spans.get_finished_spans()
    assert call.name == "penstock.aigw.v1.RouteService/GetRoute"
    assert call.parent is not None
    assert call.parent.span_id == app.context.span_id
    assert [event.name for event in call.events] == ["retry"]
    sent = script.metadata[-1]["traceparent"].split("-")
    assert sent[1:3] == [f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}"]


async def test_without_tracing_nothing_is_sent(client: AsyncClient, script) -> None:
    await client.routes.get("d/c")

    assert "traceparent" not in script.metadata[0]


async def test_lists_go_through_all_pages(client: AsyncClient) -> None:
    assert [r.name for r in await client.routes.list()] == [f"projects/p/routes/r{i}" for i in range(3)]


async def test_a_prediction_of_a_list_asks_once_for_the_inputs(client: AsyncClient, script) -> None:
    first = await client.predict("d/c", [[1, 2]])
    await client.predict("d/c", [[3, 4]], version="2")
    second = await client.predict("d/c", [[3, 4]])

    assert first.output.dtype == np.float32
    assert second["y"].tolist() == [[3.0, 4.0]]
    assert script.calls == ["ModelMetadata", "ModelInfer"] * 2 + ["ModelInfer"]


async def test_a_prediction_is_tried_again(client: AsyncClient, script) -> None:
    script.failures.append(UNAVAILABLE)

    answer = await client.predict("d/c", {"x": np.ones((1, 2), np.float32)}, version="7", request_id="r")

    assert (answer.version, answer.id) == ("7", "r")


async def test_a_stream_is_answered_in_order_and_ends_with_the_first_error(client: AsyncClient) -> None:
    async def requests() -> AsyncIterator[InferRequest]:
        for number in range(3):
            yield InferRequest("d/c", "", {"x": np.array([number], np.int64)}, id=str(number))
        yield InferRequest("d/c", "", {})

    seen = []

    async def read() -> None:
        async for answer in client.inference.stream(requests()):
            seen.append((answer.id, answer.output.tolist()))

    with pytest.raises(PenstockError, match="nothing to work on"):
        await read()
    assert seen == [("0", [0]), ("1", [1]), ("2", [2])]


async def test_a_package_is_sent_whole_and_not_twice(
    client: AsyncClient, script, make_package: Callable[[int], Path]
) -> None:
    file = make_package(1_500_000)
    seen: list[tuple[int, int]] = []

    await client.packages.upload(
        file, project="digits", progress=lambda done, total: seen.append((done, total))
    )
    await client.packages.upload(file, project="digits")

    name = "projects/digits/models/classifier/packages/1.0.0"
    assert script.stored[name] == file.read_bytes()
    assert seen[-1] == (file.stat().st_size,) * 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert script.calls.count("UploadPackage") == 1


async def test_an_upload_that_broke_is_sent_again(
    client: AsyncClient, script, make_package: Callable[[int], Path]
) -> None:
    file = make_package(1000)
    script.failures.extend([grpc.StatusCode.NOT_FOUND, UNAVAILABLE])

    await client.packages.upload(file, name="digits/other:2")

    assert script.stored["projects/digits/models/other/packages/2"] == file.read_bytes()


async def test_an_upload_without_project_asks_for_it(
    client: AsyncClient, make_package: Callable[[int], Path]
) -> None:
    with pytest.raises(InvalidArgument, match="which project"):
        await client.packages.upload(make_package(10))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
async def test_what_is_no_package_is_not_sent(client: AsyncClient, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mdspkg"
    path.write_bytes(content)

    with pytest.raises(InvalidArgument, match=r"x\.mdspkg is no package"):
        await client.packages.upload(path, project="digits")


async def test_a_download_goes_on_where_it_broke(
    client: AsyncClient, script, make_package: Callable[[int], Path], tmp_path: Path
) -> None:
    file = make_package(5000)
    await client.packages.upload(file, project="digits")
    script.break_download_after = 2000
    target = tmp_path / "there"
    target.mkdir()

    path = await client.packages.download("digits/classifier:1.0.0", target)

    assert path == target / "classifier-1.0.0.mdspkg"
    assert path.read_bytes() == file.read_bytes()
    assert [c for c in script.calls if c.startswith("Download")] == [
        "DownloadPackage@0",
        "DownloadPackage@2000",
    ]
    assert list(target.iterdir()) == [path]


async def test_a_download_with_a_wrong_digest_leaves_nothing(
    client: AsyncClient, script, make_package: Callable[[int], Path], tmp_path: Path
) -> None:
    await client.packages.upload(make_package(5000), project="digits")
    script.damage_download = True
    target = tmp_path / "there"
    target.mkdir()

    with pytest.raises(DigestMismatch):
        await client.packages.download("digits/classifier:1.0.0", target)
    assert list(target.iterdir()) == []


async def test_a_rollout_is_waited_for_and_told(client: AsyncClient, script) -> None:
    events: list[str] = []
    script.awaits_watch = True

    found = await client.deployments.apply(
        deployment_pb2.Deployment(name="projects/digits/deployments/classifier"),
        on_change=lambda response: events.append(response.event.message),
    )

    assert found.rollout_progress.state == deployment_pb2.ROLLOUT_STATE_COMPLETE
    assert script.calls.count("WaitOperation") == 2
    assert events == ["", "event 1", "event 2", "event 3"]


async def test_a_rollout_that_failed_says_why(client: AsyncClient, script) -> None:
    script.outcome = deployment_pb2.ROLLOUT_STATE_ROLLED_BACK

    with pytest.raises(RolloutFailed, match="not ready in time"):
        await client.deployments.apply(deployment_pb2.Deployment())


async def test_a_watch_that_broke_is_taken_up_where_it_broke(client: AsyncClient, script) -> None:
    seen = [response.event.message async for response in client.deployments.watch("digits/classifier")]

    assert seen == ["", "event 1", "event 2", "event 3"]
    assert script.resume_tokens == ["", "2"]


async def test_a_declaration_that_is_not_there_is_named(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"none\.yaml"):
        await client.deployments.plan(tmp_path / "none.yaml")


@pytest.fixture
def blocking(settings: Settings, script):
    """A blocking client, used from threads while the server runs on the test's loop."""
    with Client(settings, retry=FAST) as client:
        yield client


async def test_the_blocking_client_does_the_same(blocking: Client, script) -> None:
    def work() -> None:
        assert blocking.routes.get("d/c").name == "projects/d/routes/c"
        assert blocking.predict("d/c", [[1, 2]]).output.tolist() == [[1.0, 2.0]]
        watch = blocking.deployments.watch("digits/classifier")
        assert next(iter(watch)).resume_token == "1"
        watch.close()  # type: ignore[attr-defined]  # a generator
        script.awaits_watch = True
        with pytest.raises(FailedPrecondition, match="wait for itself"):
            blocking.deployments.apply(
                deployment_pb2.Deployment(), on_change=lambda _: blocking.routes.get("d/c") and None
            )

    await asyncio.to_thread(work)
    blocking.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        blocking.routes.get("d/c")


async def test_the_blocking_client_hands_the_callers_trace_on(settings: Settings, script) -> None:
    provider = TracerProvider(shutdown_on_exit=False)

    def work() -> str:
        with (
            Client(settings, tracer_provider=provider) as client,
            provider.get_tracer("app").start_as_current_span("app") as span,
        ):
            client.routes.get("d/c")
            return f"{span.get_span_context().trace_id:032x}"

    assert await asyncio.to_thread(work) in script.metadata[-1]["traceparent"]
