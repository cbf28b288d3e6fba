"""The channel to a real gRPC server behaves as servicers in process do, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import grpc
import pytest
import uvicorn
from chassis import rest


@pytest.fixture
async def both_backends(bookstore_harness: ModuleType) -> AsyncIterator[tuple[Any, Any]]:
    """A client of the transcoder over a real gRPC server, and what the server remembers."""
    contract = bookstore_harness.contract()
    store = bookstore_harness.Bookstore()
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    contract.grpc.add_BookstoreServicer_to_server(store.servicer(), server)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        apps = {
            "remote": rest.asgi(contract.descriptors, [bookstore_harness.SERVICE], rest.Remote(channel)),
            "in process": rest.asgi(
                contract.descriptors, [bookstore_harness.SERVICE], in_process(contract, store)
            ),
        }
        yield {name: bookstore_harness.AsgiClient(app) for name, app in apps.items()}, store
    await server.stop(0)


def in_process(contract: Any, store: Any) -> rest.InProcess:
    backend = rest.InProcess()
    backend.add_servicer(contract.grpc.add_BookstoreServicer_to_server, store.servicer())
    return backend


async def test_every_row_of_the_table_is_the_same_in_process_and_over_a_channel(
    both_backends: tuple[dict[str, Any], Any], envoy_cases: ModuleType
) -> None:
    clients, store = both_backends
    for case in envoy_cases.CASES:
        outcomes = []
        for client in clients.values():
            store.received.clear()
            answer = await client.send(case.method, case.target, case.body or b"", **case.headers)
            received = [
                (call.method, [r.SerializeToString(deterministic=True) for r in call.requests])
                for call in store.received
            ]
            headers = {name: value for name, value in answer.headers.items() if "shelf" in name}
            outcomes.append((answer.status, answer.body, answer.headers["content-type"], headers, received))
        assert outcomes[0] == outcomes[1], case.id


async def test_a_mistake_in_a_streamed_body_is_the_callers_not_the_channels(
    both_backends: tuple[dict[str, Any], Any],
) -> None:
    for client in both_backends[0].values():
        send = ("POST", "/v1/shelves/1/books:import")
        wrong = await client.send(*send, b'{}\n{"colour": 1}', content_type="application/x-ndjson")
        assert (wrong.status, list(wrong.violations)) == (400, ["colour"])
        assert (await client.send(*send, b"x", content_type="text/plain")).status == 415


@pytest.mark.parametrize(
    "target",
    ["/v1/shelves/1/books:watch?count=5&gap_ms=60000", "/v1/fail/5?wait_ms=60000"],
    ids=["stream", "unary"],
)
@pytest.mark.parametrize("backend", ["remote", "in process"])
async def test_a_client_that_goes_away_cancels_the_call_at_the_server(
    both_backends: tuple[dict[str, Any], Any], backend: str, target: str
) -> None:
    clients, store = both_backends
    gone = asyncio.Event()
    sending = asyncio.create_task(clients[backend].send("GET", target, gone=gone))
    await asyncio.wait_for(store.asked.wait(), 5)
    gone.set()
    await asyncio.wait_for(sending, 5)
    await asyncio.wait_for(store.cancelled.wait(), 5)


async def test_a_closed_connection_cancels_the_call_behind_a_real_http_server(
    both_backends: tuple[dict[str, Any], Any],
) -> None:
    clients, store = both_backends
    server = uvicorn.Server(uvicorn.Config(clients["remote"].app, port=0, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 — uvicorn has no event to wait for
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/shelves/1/books:watch?count=5&gap_ms=60000 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"shelves/1/books/0" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()
        await asyncio.wait_for(store.cancelled.wait(), 5)
    finally:
        server.should_exit = True
        await serving


async def test_messages_come_through_as_they_are_sent(both_backends: tuple[dict[str, Any], Any]) -> None:
    for client in both_backends[0].values():
        begun, gone = asyncio.Event(), asyncio.Event()
        target = "/v1/shelves/1/books:watch?count=2&gap_ms=60000"
        sending = asyncio.create_task(client.send("GET", target, begun=begun, gone=gone))
        await asyncio.wait_for(begun.wait(), 5)
        gone.set()
        answer = await asyncio.wait_for(sending, 5)
        assert [json.loads(chunk)["name"] for chunk in answer.chunks] == ["shelves/1/books/0"]


async def test_a_server_that_cannot_be_reached_is_unavailable(bookstore_harness: ModuleType) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        contract = bookstore_harness.contract()
        app = rest.asgi(contract.descriptors, [bookstore_harness.SERVICE], rest.Remote(channel))
        answer = await bookstore_harness.AsgiClient(app).send("GET", "/v1/shelves/1")
    assert (answer.status, answer.json["code"]) == (503, 14)
