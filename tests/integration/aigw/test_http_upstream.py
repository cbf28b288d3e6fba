"""The HTTP client towards replicas, against servers that behave badly."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aigw.adapters.http_upstream import AiohttpUpstream
from chassis import errors
from chassis.telemetry import Telemetry

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def upstream_of(serve: Serve, max_bytes: int = 1 << 26) -> AsyncIterator[AiohttpUpstream]:
    """A client of a server that treats each connection as told."""

    handling: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    upstream = AiohttpUpstream(f"{host}:{port}", None, Telemetry("test", "0"), max_bytes=max_bytes)
    try:
        yield upstream
    finally:
        await upstream.close()
        await asyncio.gather(*(task for task in handling if task is not None))
        server.close()
        await server.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return await reader.readexactly(length)


async def test_a_connection_that_was_closed_while_idle_costs_no_call() -> None:
    requests: list[bytes] = []

    async def once_per_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await _request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")  # promises to stay, and does not
        await writer.drain()
        await reader.readexactly(1)  # closes when the next request arrives

    async with upstream_of(once_per_connection) as upstream:
        for number in range(5):
            reply = await upstream.send("POST", "/x", b"%d" % number)
            assert (reply.status, reply.payload) == (200, b"ok")
    assert requests == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_server_that_never_answers_is_unavailable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)

    async with upstream_of(hang_up) as upstream:
        with pytest.raises(errors.Unavailable, match="could not be reached over HTTP") as caught:
            await upstream.send("POST", "/x", b"body")
        assert caught.value.reason == "CONNECTION_FAILED"


async def test_an_answer_that_breaks_off_is_unavailable() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()

    async with upstream_of(break_off) as upstream:
        with pytest.raises(errors.Unavailable):
            await upstream.send("POST", "/x", b"body")


async def test_what_is_no_http_is_unavailable() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.7\r\n\r\n")
        await writer.drain()
        await reader.read(1000)

    async with upstream_of(babble) as upstream:
        with pytest.raises(errors.Unavailable):
            await upstream.send("POST", "/x", b"body")


async def test_an_answer_without_an_end_is_refused_and_its_connection_closed() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with upstream_of(pour, max_bytes=1_000_000) as upstream:
        with pytest.raises(errors.ResourceExhausted, match="larger than 1000000 bytes") as caught:
            await upstream.send("POST", "/x", b"body", deadline=time.monotonic() + 10)
        assert caught.value.reason == "ANSWER_TOO_LARGE"


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"600 Beyond", b"999 Far beyond"])
async def test_an_impossible_status_is_unavailable(status: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    async with upstream_of(answer) as upstream:
        with pytest.raises(errors.Unavailable):
            await upstream.send("POST", "/x", b"body", deadline=time.monotonic() + 10)


async def test_a_deadline_ends_the_call_and_a_past_one_sends_nothing() -> None:
    connections: list[int] = []

    async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.read()

    async with upstream_of(sleep) as upstream:
        with pytest.raises(errors.DeadlineExceeded):
            await upstream.send("POST", "/x", b"", deadline=time.monotonic() - 1)
        assert connections == []
        with pytest.raises(errors.DeadlineExceeded):
            await upstream.send("POST", "/x", b"", deadline=time.monotonic() + 0.1)
        assert connections == [1]


async def test_nobody_listening_and_a_closed_upstream_are_unavailable() -> None:
    upstream = AiohttpUpstream("127.0.0.1:1", None, Telemetry("test", "0"))
    with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1 could not be reached"):
        await upstream.send("GET", "/", b"")
    await upstream.close()
    with pytest.raises(errors.Unavailable, match="is closed"):
        await upstream.send("GET", "/", b"")


async def test_hop_headers_stay_on_their_hop_and_the_rest_goes_through() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-encoding: gzip\r\nx-a: 1\r\nx-a: 2\r\n"
            b"transfer-encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x00\r\n0\r\n\r\n"
        )
        await writer.drain()

    sent = (("x-tenant", "blue"), ("authorization", "secret"), ("connection", "close"), ("host", "gateway"))
    async with upstream_of(answer) as upstream:
        reply = await upstream.send("GET", "/a%2Fb?c=%20", b"", headers=sent)
    assert reply.payload == b"\x1f\x8b\x00"  # compressed as it came
    assert reply.headers == ((b"content-encoding", b"gzip"), (b"x-a", b"1"), (b"x-a", b"2"))
    assert heads[0].startswith(b"GET /a%2Fb?c=%20 HTTP/1.1\r\n")
    assert b"x-tenant: blue" in heads[0]
    assert b"secret" not in heads[0]
    assert b"gateway" not in heads[0]
