"""HTTP connections of slow, greedy and vanishing peers, over raw sockets."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
from chassis.settings import LimitsSettings, ServiceSettings
from chassis.testing import RunningService, running

SETTINGS = ServiceSettings(limits=LimitsSettings(head_timeout=0.3, body_timeout=0.3, send_timeout=0.3))
COUNT = b"POST /count HTTP/1.1\r\nhost: a\r\n"


@pytest.fixture
async def impatient(echo_service) -> AsyncIterator[RunningService]:
    """A service with short times."""
    async with running(SETTINGS, echo_service.build) as service:
        yield service


class Peer:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hears(self) -> bytes:
        """Everything until the connection ends."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b"reset"

    async def hears_one(self) -> bytes:
        """The head of one answer, and a body that fits into one read."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = next(int(v[15:]) for v in head.split(b"\r\n") if v.startswith(b"content-length:"))
        return head + await self.reader.readexactly(length)


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def peer_of(service: RunningService) -> AsyncIterator[Peer]:
    host, _, port = service.host.rest_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET /who HTTP/1.1\r\nhost: a\r\nx-half", b"HTTP/1.1 408 ", id="half a head"),
        pytest.param(COUNT + b"content-length: 9\r\n\r\nhalf", b"HTTP/1.1 408 ", id="half a body"),
        pytest.param(COUNT + b"transfer-encoding: chunked\r\n\r\n", b"HTTP/1.1 408 ", id="no chunk"),
    ],
)
async def test_a_request_that_does_not_come_whole_is_ended(impatient, said: bytes, answer: bytes) -> None:
    async with peer_of(impatient) as peer:
        await peer.says(said)
        assert (await peer.hears()).startswith(answer)


async def test_a_head_that_trickles_in_is_ended_all_the_same(impatient) -> None:
    async with peer_of(impatient) as peer:
        hearing = asyncio.ensure_future(peer.hears())
        await peer.says(b"GET /who HTTP/1.1\r\nhost: a\r\n")
        while not hearing.done():
            await peer.says(b"x: y\r\n")
            await asyncio.wait([hearing], timeout=0.05)
        assert hearing.result()[:13] in (b"HTTP/1.1 408 ", b"reset")


async def test_blank_lines_between_requests_do_not_keep_a_connection(impatient) -> None:
    async with peer_of(impatient) as peer:
        await peer.says(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await peer.hears_one()).startswith(b"HTTP/1.1 200 ")
        await peer.says(b"\r\n")
        assert (await peer.hears())[:13] in (b"HTTP/1.1 408 ", b"")


async def test_what_takes_long_to_answer_or_arrives_steadily_is_not_ended(impatient) -> None:
    async with peer_of(impatient) as peer:
        await peer.says(COUNT + b"content-length: 10\r\n\r\n")
        for _ in range(10):
            await peer.says(b"x")
            await asyncio.sleep(0.06)
        assert (await peer.hears_one()).endswith(b'{"bytes":10}')
        await peer.says(b"GET /slow/0.7 HTTP/1.1\r\nhost: a\r\n\r\nGET /who HTTP/1.1\r\nhost")
        assert (await peer.hears_one()).endswith(b'{"slept":"0.7"}')


async def test_answers_that_nobody_takes_are_given_up(impatient, caplog) -> None:
    host, _, port = impatient.host.rest_address.rpartition(":")
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(greedy, (host, int(port)))
        asked = loop.create_task(
            loop.sock_sendall(greedy, b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n" * 300)
        )
        await asyncio.sleep(0)
        connections = impatient.service._rest._server.server_state.connections
        await _until(lambda: bool(connections))
        await _until(lambda: not connections)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await asked
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"1\r\nx\r\n0\r\n" + b"x-more: of the same\r\n" * 20_000, id="trailers"),
        pytest.param(b"1;" + b"x" * 400_000, id="chunk extension"),
        pytest.param(b"1\r\nx\r\n0\r\nx-more: " + b"x" * 400_000, id="one trailer"),
    ],
)
async def test_framing_without_end_is_cut_off(impatient, endless: bytes) -> None:
    async with peer_of(impatient) as peer:
        with contextlib.suppress(ConnectionError):
            await peer.says(COUNT + b"transfer-encoding: chunked\r\n\r\n" + endless)
            assert b" 200 " not in await peer.hears()


async def test_a_body_in_tiny_chunks_is_taken(impatient) -> None:
    async with peer_of(impatient) as peer:
        await peer.says(COUNT + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
        assert (await peer.hears_one()).endswith(b'{"bytes":50000}')


async def test_trailers_are_no_headers(impatient) -> None:
    async with peer_of(impatient) as peer:
        head = b"POST /headers HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await peer.says(head + b"1\r\nx\r\n")
        await peer.says(b"0\r\nauthorization: Bearer late\r\n\r\n")
        answer = await peer.hears_one()
        assert (b"transfer-encoding" in answer, b"authorization" in answer) == (True, False)


@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(b"content-length: 5\r\n\r\nhello", id="length"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", id="chunks"),
    ],
)
async def test_an_offer_to_upgrade_is_left_alone_and_the_body_is_read(impatient, framed: bytes) -> None:
    # Java's client offers h2c with its first request, whatever that is.
    offer = (
        COUNT
        + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
        + framed
    )
    async with peer_of(impatient) as peer:
        await peer.says(offer + offer[:40])
        assert (await peer.hears_one()).endswith(b'{"bytes":5}')
        await peer.says(offer[40:])
        assert (await peer.hears_one()).endswith(b'{"bytes":5}')
    async with peer_of(impatient) as peer:
        await peer.says(offer[:-3])
        await peer.says(offer[-3:])
        assert (await peer.hears_one()).endswith(b'{"bytes":5}')
        await peer.says(b"GET /who HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert (await peer.hears_one()).startswith(b"HTTP/1.1 200 ")


async def test_the_end_of_a_service_loses_no_caller(echo_service: Callable[..., None]) -> None:
    """One that keeps its connection is told to let go; one that had connected is answered."""
    settings = ServiceSettings()
    async with contextlib.AsyncExitStack() as stack:
        async with running(settings, echo_service.build) as service:
            kept = await stack.enter_async_context(peer_of(service))
            await kept.says(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"connection: close" not in await kept.hears_one()
            await service.service._rest.not_serving()
            await kept.says(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"connection: close" in await kept.hears_one()
            late = [await stack.enter_async_context(peer_of(service)) for _ in range(20)]
            answers = [asyncio.create_task(_ask_a_little_later(peer)) for peer in late]
        assert {(await answer)[:13] for answer in answers} == {b"HTTP/1.1 200 "}


async def _ask_a_little_later(peer: Peer) -> bytes:
    await asyncio.sleep(0.05)
    await peer.says(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n")
    return await peer.hears()
