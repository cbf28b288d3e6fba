"""The life of a service process: start, readiness, drain, crash, refusals."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from chassis import errors, status
from chassis.bootstrap import Host, main
from chassis.settings import DrainSettings, LimitsSettings, ListenSettings, ServiceSettings
from chassis.testing import ServiceProcess, free_port, running, service_process
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.aigw.v1 import endpoint_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2_grpc

UNARY = "/test.v1.Echo/Unary"


def process(echo_command, **environ: str):
    return service_process(
        "echo", command=echo_command, environ={"ECHO_DRAIN__SETTLE": "0", **environ}, timeout=60
    )


def events(service: ServiceProcess) -> list[str]:
    return [json.loads(line)["event"] for line in service.log().splitlines() if line.startswith("{")]


async def test_sigterm_deregisters_finishes_what_is_in_flight_and_exits_zero(echo_command) -> None:
    async with process(echo_command) as service:
        async with grpc.aio.insecure_channel(service.grpc_address) as channel:
            call = channel.unary_unary(UNARY)
            assert await call(b"warm") == b"warm"
            in_flight = asyncio.ensure_future(call(b"sleep 0.7"))
            async with httpx.AsyncClient(trust_env=False) as http:
                request = asyncio.create_task(http.get(f"{service.rest_url}/slow/0.7"))
                await asyncio.sleep(0.2)  # both are in flight: nothing outside tells so
                service.signal(signal.SIGTERM)
                assert await in_flight == b"sleep 0.7"
                assert (await request).json() == {"slept": "0.7"}
        assert await service.wait() == 0
        told = events(service)
        assert (
            told.index("serving")
            < told.index("draining")
            < told.index("deregistered")
            < told.index("stopped")
        )


async def test_work_beyond_the_limit_is_cut_off(echo_service) -> None:
    settings = ServiceSettings(drain=DrainSettings(limit=0.2))
    async with running(settings, echo_service.build) as service:
        call = service.channel.unary_unary(UNARY)
        await call(b"warm")
        hanging = asyncio.ensure_future(call(b"sleep 60"))
        await asyncio.sleep(0.1)  # it is in flight: nothing outside tells so
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await asyncio.wait_for(hanging, 10)


async def test_a_second_signal_exits_at_once(echo_command) -> None:
    async with process(echo_command) as service:
        async with grpc.aio.insecure_channel(service.grpc_address) as channel:
            call = channel.unary_unary(UNARY)
            await call(b"warm")
            hanging = asyncio.ensure_future(call(b"sleep 60"))
            await asyncio.sleep(0.1)
            service.signal(signal.SIGINT)
            async with asyncio.timeout(10):
                while "draining" not in events(service):  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(0.02)
            service.signal(signal.SIGTERM)
            assert await service.wait(10) == 128 + signal.SIGTERM
            with pytest.raises(grpc.aio.AioRpcError):
                await hanging
        assert "exiting at once" in service.log()


async def test_watches_do_not_hold_up_the_drain(echo_service) -> None:
    began = asyncio.get_running_loop().time()
    async with AsyncExitStack() as after:
        await _watch_a_service_that_ends(echo_service, after)
    assert asyncio.get_running_loop().time() - began < 15


async def _watch_a_service_that_ends(echo_service, after: AsyncExitStack) -> None:
    async with running(ServiceSettings(drain=DrainSettings(limit=30)), echo_service.build) as service:
        channel = await after.enter_async_context(grpc.aio.insecure_channel(service.grpc_address))
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        stub = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
        watch = stub.WatchEndpoints(
            pb.WatchEndpointsRequest(parent="projects/-/models/-", resume_token="forever")
        )
        assert (await watch.read()).resume_token == "1"
        client = httpx.AsyncClient(base_url=service.rest_url, trust_env=False)
        http = await after.enter_async_context(client)
        path = "/v1/projects/-/models/-/endpoints:watch?resume_token=forever"
        events = await http.send(http.build_request("GET", path), stream=True)
        lines = events.aiter_lines()
        assert "1" in await anext(lines)
        rest = asyncio.create_task(_rest_of(lines))
        ended = asyncio.create_task(_end_of(watch))
    error = await ended
    assert isinstance(error, errors.Unavailable)
    assert error.reason == "DRAINING"
    assert "shutting down" in await rest
    await events.aclose()


async def _rest_of(lines: AsyncIterator[str]) -> str:
    return "".join([line async for line in lines])


async def _end_of(call) -> errors.Error:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return status.from_rpc_error(caught.value)


async def test_calls_beyond_the_limit_of_the_process_are_refused_at_once(echo_service) -> None:
    settings = ServiceSettings(limits=LimitsSettings(max_concurrent_calls=1))
    async with running(settings, echo_service.build) as service:
        call = service.channel.unary_unary(UNARY)
        assert await call(b"warm") == b"warm"
        first = asyncio.ensure_future(call(b"sleep 0.5"))
        await asyncio.sleep(0.1)  # it is in flight: nothing outside tells so
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"second")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await first == b"sleep 0.5"


@pytest.fixture
def root_logging() -> Iterator[None]:
    """`main` configures the process's logging; a test process gets its own back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


REFUSALS = [
    ({"ECHO_GRPC__PORT": "http"}, "ECHO_GRPC__PORT"),
    ({"ECHO_GRPC__HOST": "0.0.0.0"}, "refusing to listen on 0.0.0.0:0"),
    ({"ECHO_AUTH__TOKENS_FILE": "/nowhere/tokens"}, "/nowhere/tokens"),
    ({"ECHO_TLS__CERT_FILE": "/nowhere/c", "ECHO_TLS__KEY_FILE": "/nowhere/k"}, "/nowhere/"),
]


@pytest.mark.parametrize(("environ", "text"), REFUSALS, ids=["setting", "listening", "tokens", "certificate"])
def test_what_cannot_be_started_says_why_and_exits_with_two(
    echo_service, root_logging: None, capsys: pytest.CaptureFixture[str], environ: dict[str, str], text: str
) -> None:
    assert main("echo", echo_service.EchoSettings, echo_service.build, environ=environ) == 2
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told


def test_a_crashed_task_ends_the_service_with_one(
    echo_service, root_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"ECHO_CRASH_AFTER": "0.05"}
    assert main("echo", echo_service.EchoSettings, echo_service.build, environ=environ) == 1
    assert "the task broke" in capsys.readouterr().err


async def test_the_addresses_file_tells_what_was_bound(echo_service, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "addresses.json"
    async with running(ServiceSettings(addresses_file=path), echo_service.build) as service:
        told = json.loads(path.read_text())
    assert told == {"grpc": service.grpc_address, "rest": service.rest_url, "pid": os.getpid()}
    assert [p.name for p in path.parent.iterdir()] == ["addresses.json"]


async def build_nothing(host: Host, settings: ServiceSettings) -> None:
    """A service with nothing of its own."""


@pytest.mark.parametrize("face", ["grpc", "rest"])
async def test_a_busy_port_is_an_error_and_never_shared(face: str) -> None:
    async with running(ServiceSettings(), build_nothing) as first:
        busy = first.host.grpc_address if face == "grpc" else first.host.rest_address
        port = int(busy.rpartition(":")[2])
        settings = ServiceSettings(**{face: ListenSettings(port=port)})
        with pytest.raises(errors.FailedPrecondition, match=f"cannot listen on 127.0.0.1:{port}"):
            async with running(settings, build_nothing, any_port=False):
                pass


async def test_open_listening_is_allowed_when_said_explicitly() -> None:
    settings = ServiceSettings(
        grpc=ListenSettings(host="0.0.0.0"), rest=ListenSettings(enabled=False), insecure_listen=True
    )
    async with running(settings, build_nothing) as service:
        assert service.grpc_address.startswith("0.0.0.0:")
        assert service.rest_url == ""


async def test_resources_close_in_reverse_after_tasks_and_callbacks() -> None:
    order: list[str] = []

    class Resource:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __aenter__(self) -> str:
            order.append(f"open {self.name}")
            return self.name

        async def __aexit__(self, *error: object) -> None:
            order.append(f"close {self.name}")

    async def build(host: Host, settings: ServiceSettings) -> None:
        assert await host.enter(Resource("a")) == "a"
        await host.enter(Resource("b"))

        async def task() -> None:
            order.append("task began")
            try:
                await asyncio.Event().wait()
            finally:
                order.append("task ended")

        async def callback() -> None:
            order.append("drained")

        async def broken() -> None:
            raise RuntimeError("must not keep the rest from draining")

        host.add_task("task", task)
        host.on_drain(broken)
        host.on_drain(callback)

    async with running(ServiceSettings(), build):
        order.append("serving")
        await asyncio.sleep(0)
    order.remove("serving")
    assert order == ["open a", "open b", "task began", "drained", "task ended", "close b", "close a"]


async def test_a_failing_task_ends_whoever_uses_the_service_and_closes_everything() -> None:
    closed = asyncio.Event()

    async def build(host: Host, settings: ServiceSettings) -> None:
        class Resource:
            async def __aenter__(self) -> None: ...

            async def __aexit__(self, *error: object) -> None:
                closed.set()

        await host.enter(Resource())

        async def task() -> None:
            raise RuntimeError("the task broke")

        host.add_task("task", task)

    with pytest.raises(ExceptionGroup) as caught:
        async with running(ServiceSettings(), build):
            await asyncio.Event().wait()
    assert caught.group_contains(RuntimeError, match="the task broke")
    assert closed.is_set()


async def test_a_failure_inside_the_context_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running(ServiceSettings(drain=DrainSettings(settle=0)), build_nothing):
            raise ZeroDivisionError


async def test_a_task_can_be_added_while_running() -> None:
    ran = asyncio.Event()

    async def task() -> None:
        ran.set()

    async with running(ServiceSettings(), build_nothing) as service:
        service.host.add_task("late", task)
        await asyncio.wait_for(ran.wait(), 5)


async def test_the_process_fixture_leaves_nothing_behind(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    line = ["sh", "-c", f"sleep 1000 & echo $! > {pid_file}; echo started; wait"]
    async with service_process("anything", command=line, wait=False) as service:
        async with asyncio.timeout(10):
            while "started" not in service.log():  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.01)
        child = int(pid_file.read_text())
        os.kill(child, 0)
    async with asyncio.timeout(10):
        while _alive(child):  # noqa: ASYNC110 - the kernel's doing
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_free_ports_are_free() -> None:
    assert free_port() != 0
