"""The REST transcoder against the real Envoy: one gRPC server, two transcoders, the same requests.

What Envoy's grpc_json_transcoder answers is the yardstick. Each row of `cases.CASES` says whether the two
must agree, must both refuse, or differ on purpose; a deliberate difference that has gone away fails like one
that has come.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import pytest_asyncio
import uvicorn
from chassis import rest
from google.protobuf import json_format

ROOT = Path(__file__).parents[3]
WATCHED = ("authorization", "traceparent", "x-note", "grpc-metadata-x-note")


@dataclass(frozen=True)
class Outcome:
    """What a client got and what the server was asked."""

    status: int
    body: Any
    lines: int
    content_type: str
    headers: dict[str, str]
    received: list[Any]
    metadata: dict[str, str]
    deadline: bool

    def says(self, key: str, expected: Any) -> bool:
        """Whether the outcome holds what a row of the table says of one key."""
        if key == "headers":
            return all(self.headers.get(name) == value for name, value in expected.items())
        return bool(getattr(self, key) == expected)


@dataclass(frozen=True)
class Stand:
    """The two transcoders and what the server behind them remembers."""

    envoy: int
    ours: int
    store: Any

    async def send(self, case: Any, port: int) -> Outcome:
        """Send a row's request to one of the two."""
        self.store.received.clear()
        status, headers, raw = await asyncio.to_thread(ask, port, case)
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
        calls = list(self.store.received)
        return Outcome(
            status=status,
            body=body,
            lines=raw.count(b"\n"),
            content_type=headers.get("content-type", ""),
            headers=headers,
            received=[[c.method, [json_format.MessageToDict(r) for r in c.requests]] for c in calls],
            metadata={k: v for c in calls for k, v in c.metadata.items() if k in WATCHED},
            deadline=any(c.time_remaining is not None for c in calls),
        )


def ask(port: int, case: Any) -> tuple[int, dict[str, str], bytes]:
    """One request, its target sent exactly as it stands in the table."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(case.method, case.target, skip_accept_encoding=True)
        for name, value in case.headers.items():
            if value:
                connection.putheader(name, value)
        if case.body is not None:
            connection.putheader("content-length", str(len(case.body)))
        connection.endheaders(case.body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()
    finally:
        connection.close()


async def until_started(server: uvicorn.Server) -> None:
    """Wait until uvicorn listens; it tells by a flag alone."""
    while not server.started:  # noqa: ASYNC110 — uvicorn has no event to wait for
        await asyncio.sleep(0.005)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(
    bookstore_harness: ModuleType, envoy_module: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """A gRPC server, Envoy and our transcoder in front of it, for all rows."""
    home = tmp_path_factory.mktemp("envoy")
    contract = bookstore_harness.contract()
    store = bookstore_harness.Bookstore()
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    contract.grpc.add_BookstoreServicer_to_server(store.servicer(), server)
    await server.start()
    descriptors = home / "bookstore.binpb"
    descriptors.write_bytes(envoy_module.servable(contract.descriptors))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        app = rest.asgi(contract.descriptors, [bookstore_harness.SERVICE], rest.Remote(channel))
        http_server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        serving = asyncio.create_task(http_server.serve())
        await until_started(http_server)
        ours = http_server.servers[0].sockets[0].getsockname()[1]
        try:
            async with envoy_module.running(port, [bookstore_harness.SERVICE], descriptors, home) as envoy:
                yield Stand(envoy, ours, store)
        finally:
            http_server.should_exit = True
            await serving
            await server.stop(0)


def test_the_table_is_large_and_its_ids_are_unique(envoy_cases: ModuleType) -> None:
    ids = [case.id for case in envoy_cases.CASES]
    assert len(ids) >= 80
    assert len(set(ids)) == len(ids)


def test_every_deliberate_difference_is_documented_and_nothing_else_is(envoy_cases: ModuleType) -> None:
    text = (ROOT / "docs/rest.md").read_text()
    section = text.split("## Where we differ from Envoy on purpose")[1].split("\n## ")[0]
    documented = set(re.findall(r"^- \*\*(.+?)\.?\*\*", section, re.MULTILINE))
    assert {case.reason for case in envoy_cases.CASES if case.reason} == documented


@pytest.mark.asyncio(loop_scope="module")
async def test_envoy_and_ours_agree_or_differ_on_purpose(stand: Stand, envoy_case: Any) -> None:
    case = envoy_case
    theirs = await stand.send(case, stand.envoy)
    ours = await stand.send(case, stand.ours)
    if case.refused:
        assert (theirs.status, ours.status) == (case.refused, case.refused)
        assert (theirs.received, ours.received) == ([], [])
        assert_is_status(ours)
    elif case.reason:
        for key, expected in case.envoy.items():
            assert theirs.says(key, expected), f"Envoy's {key}: {getattr(theirs, key)}"
        for key, expected in case.ours.items():
            assert ours.says(key, expected), f"our {key}: {getattr(ours, key)}"
        assert differ(theirs, ours), (
            "the deliberate difference has gone: change the row and the documentation"
        )
        if ours.status >= 400:
            assert_is_status(ours)
    else:
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        assert ours.received == theirs.received
        assert (ours.metadata, ours.deadline) == (theirs.metadata, theirs.deadline)


def differ(theirs: Outcome, ours: Outcome) -> bool:
    """Whether anything of what the rows compare is different."""
    keys = ("status", "body", "received", "metadata", "deadline")
    headers = {name for name in (*theirs.headers, *ours.headers) if "shelf-" in name}
    return any(getattr(theirs, key) != getattr(ours, key) for key in keys) or any(
        theirs.headers.get(name) != ours.headers.get(name) for name in headers
    )


def assert_is_status(outcome: Outcome) -> None:
    """The body is a google.rpc.Status that says why."""
    assert outcome.content_type == "application/json"
    assert set(outcome.body) <= {"code", "message", "details"}
    assert outcome.body["code"] > 0
    assert outcome.body["message"]
    assert outcome.body["details"][0]["reason"]
