"""`aigw run` as a process: starts alone, serves, drains, and ends with the right code."""

from pathlib import Path

import grpc
from chassis.testing import service_process
from penstock.aigw.v1 import route_pb2, route_service_pb2, route_service_pb2_grpc


def _environ(folder: Path, **more: str) -> dict[str, str]:
    return {
        "AIGW_STORE__PATH": str(folder / "aigw.db"),
        "AIGW_ACCESS_LOG__PATH": str(folder / "access.log"),
        **more,
    }


async def test_the_gateway_runs_alone_keeps_its_routes_over_kill_9_and_drains(tmp_path: Path) -> None:
    request = route_service_pb2.CreateRouteRequest(
        parent="projects/digits",
        route_id="classifier",
        route=route_pb2.Route(targets=[route_pb2.Target(version="1", weight=1)]),
    )
    async with (
        service_process("aigw", environ=_environ(tmp_path), timeout=90) as first,
        grpc.aio.insecure_channel(first.grpc_address) as channel,
    ):
        await route_service_pb2_grpc.RouteServiceStub(channel).CreateRoute(request)
        # Leaving the context kills the process without a word.
    async with service_process("aigw", environ=_environ(tmp_path), timeout=90) as second:
        async with grpc.aio.insecure_channel(second.grpc_address) as channel:
            stub = route_service_pb2_grpc.RouteServiceStub(channel)
            found = await stub.ListRoutes(route_service_pb2.ListRoutesRequest(parent="projects/-"))
            assert [route.name for route in found.routes] == ["projects/digits/routes/classifier"]
        assert await second.stop() == 0


async def test_a_store_that_cannot_be_used_ends_it_with_code_2_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "aigw.db").write_text("no database\n" * 100)
    async with service_process("aigw", environ=_environ(tmp_path), wait=False) as process:
        assert await process.wait(timeout=90) == 2
        assert "aigw.db cannot be used" in process.log()
