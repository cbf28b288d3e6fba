"""The whole way from an HTTP request to a servicer in this process and back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from chassis import errors, rest
from chassis.errors import Code
from google.protobuf import empty_pb2
from google.rpc import status_pb2
from starlette.applications import Starlette
from starlette.routing import Mount


async def test_a_service_that_is_not_ours_is_served_from_its_descriptors(
    rest_client: Any, bookstore: Any
) -> None:
    answer = await rest_client().send("GET", "/v1/theme/rock%2Froll/shelf")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"theme": "rock/roll", "bookCount": "9007199254740993"}
    assert bookstore.received[0].requests[0].theme == "rock/roll"


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
async def test_each_code_has_its_http_status_and_a_status_body(rest_client: Any, code: Code) -> None:
    answer = await rest_client().send("GET", f"/v1/fail/{code.value}?text=why")
    assert answer.status == code.http_status
    assert answer.json == {"code": code.value, "message": "why"}


async def test_the_details_of_an_error_come_through(rest_client: Any) -> None:
    answer = await rest_client().send("POST", "/v1/fail", {"code": 14, "text": "later", "detailed": True})
    assert answer.status == 503
    assert [detail["@type"].rpartition(".")[2] for detail in answer.json["details"]] == [
        "ErrorInfo",
        "BadRequest",
        "RetryInfo",
    ]
    assert answer.headers["retry-after"] == "0"


class Raising:
    """A servicer whose every unary method raises what it is given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        async def method(request: Any, context: Any) -> Any:
            raise self.error

        return method


async def test_an_error_of_the_chassis_becomes_its_status(rest_client: Any) -> None:
    error = errors.NotFound("no shelf 1", reason="SHELF_NOT_FOUND", metadata={"shelf": "1"}, retry_after=1.5)
    answer = await rest_client(servicer=Raising(error)).send("GET", "/v1/shelves/1")
    assert (answer.status, answer.reason, answer.json["message"]) == (404, "SHELF_NOT_FOUND", "no shelf 1")
    assert answer.headers["retry-after"] == "2"


async def test_an_unknown_exception_tells_the_log_and_not_the_caller(
    rest_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await rest_client(servicer=Raising(ValueError("the password is x"))).send(
            "GET", "/v1/shelves/1"
        )
    assert (answer.status, answer.json["code"]) == (500, 13)
    assert "password" not in answer.body.decode()
    assert "the password is x" in caplog.text


async def test_a_method_that_is_not_overridden_is_unimplemented(
    rest_client: Any, bookstore_contract: Any
) -> None:
    bare = bookstore_contract.grpc.BookstoreServicer()
    answer = await rest_client(servicer=bare).send("GET", "/v1/shelves/1")
    assert (answer.status, answer.json["code"]) == (501, 12)


async def test_an_unknown_path_is_404_with_a_status(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v9/nothing")
    assert (answer.status, answer.json["code"], answer.reason) == (404, 5, "PATH_NOT_FOUND")


async def test_another_method_is_405_with_allow(rest_client: Any) -> None:
    answer = await rest_client().send("PUT", "/v1/shelves/1")
    assert (answer.status, answer.reason) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "DELETE, GET, REPORT"


async def test_head_is_answered_like_get_without_the_body(rest_client: Any) -> None:
    client = rest_client()
    head, get = await client.send("HEAD", "/v1/shelves/1"), await client.send("GET", "/v1/shelves/1")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_a_custom_method_is_served(rest_client: Any) -> None:
    answer = await rest_client().send("REPORT", "/v1/shelves/1")
    assert answer.json == {"name": "shelves/1", "theme": "seen"}


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("application/x-www-form-urlencoded", "UNSUPPORTED_MEDIA_TYPE"),
        ("text/plain", "UNSUPPORTED_MEDIA_TYPE"),
        ("application/json; charset=utf-16", "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_a_body_of_another_type_is_415(rest_client: Any, content_type: str, reason: str) -> None:
    answer = await rest_client().send("POST", "/v1/shelves", b"a=b", content_type=content_type)
    assert (answer.status, answer.reason) == (415, reason)
    assert answer.headers["accept"].startswith("application/json")


async def test_a_compressed_body_is_415(rest_client: Any) -> None:
    answer = await rest_client().send("POST", "/v1/shelves", b"\x1f\x8b", content_encoding="gzip")
    assert (answer.status, answer.reason) == (415, "UNSUPPORTED_CONTENT_ENCODING")


async def test_an_accept_that_takes_nothing_is_406(rest_client: Any, bookstore: Any) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1", accept="text/html")
    assert (answer.status, answer.reason) == (406, "NOT_ACCEPTABLE")
    assert not bookstore.received


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_body_beyond_the_limit_is_413_whether_it_says_so_or_not(
    rest_client: Any, bookstore: Any
) -> None:
    client = rest_client(rest.Options(max_request_bytes=100))
    said = await client.send("POST", "/v1/shelves", b"x" * 101, content_length="101")
    unsaid = await client.send("POST", "/v1/shelves", in_pieces(*[b"x" * 60] * 5))
    fits = await client.send("POST", "/v1/shelves", b'{"theme": "' + b"x" * 80 + b'"}')
    assert [said.status, unsaid.status, fits.status] == [413, 413, 200]
    assert said.reason == unsaid.reason == "BODY_TOO_LARGE"
    assert len(bookstore.received) == 1


async def test_every_wrong_field_of_a_body_is_named(rest_client: Any) -> None:
    answer = await rest_client().send("POST", "/v1/shelves", {"colour": 1, "bookCount": "many"})
    assert answer.status == 400
    assert list(answer.violations) == ["shelf.colour", "shelf.book_count"]


async def test_malformed_json_names_line_and_column(rest_client: Any) -> None:
    answer = await rest_client().send("POST", "/v1/shelves", b'{\n"theme" "x"}')
    assert answer.reason == "MALFORMED_JSON"
    assert answer.json["details"][0]["metadata"] == {"line": "2", "column": "9"}


async def test_a_path_value_of_the_wrong_kind_is_named(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v1/number/x/kind/NOVEL/raw/AA/rare/true")
    assert (answer.status, list(answer.violations)) == (400, ["number"])


async def test_a_body_where_none_is_taken_is_refused_and_an_empty_object_let_through(
    rest_client: Any,
) -> None:
    client = rest_client()
    assert (await client.send("DELETE", "/v1/shelves/1", {"a": 1})).reason == "UNEXPECTED_BODY"
    assert (await client.send("DELETE", "/v1/shelves/1", {})).status == 200


async def test_the_response_body_field_is_the_answer(rest_client: Any) -> None:
    client = rest_client()
    assert (await client.send("GET", "/v1/titles?words=a&words=b")).json == ["a", "b"]
    assert (await client.send("GET", "/v1/titles")).json == []
    assert (await client.send("GET", "/v1/first?words=a")).json == {"title": "a"}


OPTIONS = [
    ("as they are", rest.Options(), {"kind": "NOVEL", "anInt32": 5}),
    ("contract names", rest.Options(preserve_proto_field_names=True), {"kind": "NOVEL", "an_int32": 5}),
    ("enum numbers", rest.Options(enums_as_integers=True), {"kind": 1, "anInt32": 5}),
]


@pytest.mark.parametrize(("options", "wanted"), [row[1:] for row in OPTIONS], ids=[row[0] for row in OPTIONS])
async def test_the_form_of_answers_is_an_option(
    rest_client: Any, options: rest.Options, wanted: dict[str, Any]
) -> None:
    assert (await rest_client(options).send("POST", "/v1/echo", {"kind": 1, "an_int32": 5})).json == wanted


async def test_default_values_are_written_when_asked(rest_client: Any) -> None:
    answer = await rest_client(rest.Options(emit_default_values=True)).send("POST", "/v1/echo", {})
    assert answer.json["text"] == ""
    assert answer.json["anInt64"] == "0"
    assert answer.json["texts"] == []
    assert "maybe" not in answer.json


async def test_unknown_fields_are_skipped_when_asked(rest_client: Any) -> None:
    client = rest_client(rest.Options(ignore_unknown_fields=True))
    assert (await client.send("POST", "/v1/shelves", {"colour": 1, "theme": "x"})).json == {"theme": "x"}


async def test_unannotated_methods_are_served_when_asked(rest_client: Any, bookstore: Any) -> None:
    client = rest_client(rest.Options(serve_unannotated=True))
    answer = await client.send("POST", "/example.bookstore.v1.Bookstore/Chat", b"{}\n")
    assert answer.status == 501
    assert (await rest_client().send("POST", "/example.bookstore.v1.Bookstore/Chat")).status == 404


# headers and metadata


async def test_headers_become_metadata_and_metadata_headers(rest_client: Any, bookstore: Any) -> None:
    answer = await rest_client().send(
        "GET",
        "/v1/shelves/1",
        authorization="Bearer x",
        grpc_metadata_note_bin="AP8=",
        x_request_id="7",
        cookie="secret",
    )
    metadata = bookstore.received[0].metadata
    assert metadata == {"authorization": "Bearer x", "note-bin": b"\x00\xff", "x-request-id": "7"}
    assert answer.headers["grpc-metadata-shelf-colour"] == "green"
    assert answer.headers["grpc-metadata-shelf-bin"] == "AP8="
    assert answer.headers["grpc-trailer-shelf-weight"] == "12"


async def test_grpc_timeout_is_the_deadline_and_ends_the_call(rest_client: Any, bookstore: Any) -> None:
    client = rest_client()
    await client.send("GET", "/v1/shelves?page_size=1", grpc_timeout="30S")
    assert 29 < bookstore.received[0].time_remaining <= 30
    answer = await client.send("GET", "/v1/fail/5?wait_ms=60000", grpc_timeout="30m")
    assert (answer.status, answer.json["code"]) == (504, 4)
    assert bookstore.received[1].cancelled


async def test_a_default_timeout_is_an_option(rest_client: Any, bookstore: Any) -> None:
    await rest_client(rest.Options(default_timeout=5)).send("GET", "/v1/shelves")
    assert 4 < bookstore.received[0].time_remaining <= 5


async def test_a_handlers_own_timeout_is_not_the_callers_deadline(rest_client: Any) -> None:
    answer = await rest_client(servicer=Raising(TimeoutError("a disk"))).send(
        "GET", "/v1/shelves/1", grpc_timeout="30S"
    )
    assert answer.status == 500


# streams


async def test_a_stream_is_lines_of_json(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1/books:watch?count=2")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["name"] for line in answer.body.splitlines()] == [
        "shelves/1/books/0",
        "shelves/1/books/1",
    ]
    assert len(answer.chunks) == 2


async def test_a_stream_is_events_when_they_are_preferred(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1/books:watch?count=1", accept="text/event-stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.body == b'data: {"name":"shelves/1/books/0","title":"line\\nbreak 0"}\n\n'


@pytest.mark.parametrize(
    ("accept", "last"),
    [
        ("application/x-ndjson", b'{"error":{"code":14,"message":"the watch broke"}}\n'),
        ("text/event-stream", b'event: error\ndata: {"code":14,"message":"the watch broke"}\n\n'),
    ],
)
async def test_a_failure_on_the_way_is_the_end_of_the_stream(
    rest_client: Any, accept: str, last: bytes
) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1/books:watch?count=1&fail_code=14", accept=accept)
    assert (answer.status, len(answer.chunks), answer.chunks[-1]) == (200, 2, last)


async def test_a_failure_before_the_first_message_has_its_http_status(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1/books:watch?fail_code=5")
    assert (answer.status, answer.json) == (404, {"code": 5, "message": "the watch broke"})


async def test_an_empty_stream_is_an_empty_body(rest_client: Any) -> None:
    answer = await rest_client().send("GET", "/v1/shelves/1/books:watch")
    assert (answer.status, answer.body) == (200, b"")


class Silent:
    """A servicer whose watch says nothing until it is cancelled, optionally after its initial metadata."""

    def __init__(self, *, metadata: bool = False) -> None:
        self.metadata = metadata
        self.cancelled = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
            if self.metadata:
                await context.send_initial_metadata((("a", "b"),))
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
            yield

        return watch


async def test_a_silent_stream_begins_and_is_kept_alive(rest_client: Any) -> None:
    options = rest.Options(first_message_wait=0.01, keep_alive=0.01)
    gone, begun, servicer = asyncio.Event(), asyncio.Event(), Silent()
    sending = asyncio.create_task(
        rest_client(options, servicer=servicer).send(
            "GET", "/v1/shelves/1/books:watch", accept="text/event-stream", gone=gone, begun=begun
        )
    )
    await asyncio.wait_for(begun.wait(), 5)
    await asyncio.sleep(0.05)
    gone.set()
    answer = await asyncio.wait_for(sending, 5)
    assert len(answer.chunks) >= 2
    assert set(answer.chunks) == {b": \n\n"}
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_a_stream_begins_with_the_servers_initial_metadata(rest_client: Any) -> None:
    gone, begun, servicer = asyncio.Event(), asyncio.Event(), Silent(metadata=True)
    sending = asyncio.create_task(
        rest_client(rest.Options(first_message_wait=600), servicer=servicer).send(
            "GET", "/v1/shelves/1/books:watch", accept="text/event-stream", gone=gone, begun=begun
        )
    )
    await asyncio.wait_for(begun.wait(), 5)
    gone.set()
    assert (await sending).headers["grpc-metadata-a"] == "b"


@pytest.mark.parametrize(
    "target",
    ["/v1/shelves/1/books:watch?count=5&gap_ms=60000", "/v1/fail/5?wait_ms=60000"],
    ids=["stream", "unary"],
)
async def test_a_client_that_goes_away_cancels_the_call(
    rest_client: Any, bookstore: Any, target: str
) -> None:
    gone = asyncio.Event()
    sending = asyncio.create_task(rest_client().send("GET", target, gone=gone))
    await bookstore.asked.wait()
    gone.set()
    await asyncio.wait_for(sending, 5)
    await asyncio.wait_for(bookstore.cancelled.wait(), 5)
    assert bookstore.received[0].cancelled


async def test_cancelling_the_server_is_not_swallowed(rest_client: Any, bookstore: Any) -> None:
    sending = asyncio.create_task(rest_client().send("GET", "/v1/fail/5?wait_ms=60000"))
    await bookstore.asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_a_client_stream_is_read_line_by_line_as_it_arrives(rest_client: Any, bookstore: Any) -> None:
    body = in_pieces(b'{"book":{"tit', b'le":"a"}}\n\n{"book":', b'{"title":"b"}}')
    answer = await rest_client().send(
        "POST", "/v1/shelves/1/books:import", body, content_type="application/x-ndjson"
    )
    assert answer.json == {"count": 2, "titles": ["a", "b"], "parents": ["shelves/1", "shelves/1"]}


async def test_a_wrong_line_of_a_client_stream_is_named(rest_client: Any) -> None:
    client = rest_client()
    send = ("POST", "/v1/shelves/1/books:import")
    malformed = await client.send(*send, b'{}\n{"a":', content_type="application/jsonl")
    unknown = await client.send(*send, [{"book": {"colour": 1}}])
    assert "message 2 of the request body is not valid JSON" in malformed.json["message"]
    assert list(unknown.violations) == ["book.colour"]
    assert (await client.send(*send, b"x", content_type="text/plain")).status == 415


async def test_a_line_beyond_the_limit_is_413_and_a_long_stream_is_not(rest_client: Any) -> None:
    client = rest_client(rest.Options(max_request_bytes=50))
    lines = [b'{"book":{"title":"a"}}\n'] * 20
    send = ("POST", "/v1/shelves/1/books:import")
    many = await client.send(*send, in_pieces(*lines), content_type="application/x-ndjson")
    long = await client.send(*send, in_pieces(b"x" * 60), content_type="application/x-ndjson")
    assert (many.status, many.json["count"], long.status) == (200, 20, 413)


async def test_bytes_go_in_and_out_untouched(rest_client: Any, bookstore: Any) -> None:
    client = rest_client()
    out = await client.send("GET", "/v1/shelves/1/books/2/cover", accept="image/*")
    assert (out.headers["content-type"], out.body[:4]) == ("image/png", b"\x89PNG")
    text = await client.send("GET", "/v1/shelves/1/books/2/text")
    assert (text.headers["content-type"], text.body) == ("text/plain", b"Once upon a time.\n")
    put = await client.send(
        "PUT", "/v1/shelves/1/books/2/cover?note=n", b"\x00\xff", content_type="image/png"
    )
    assert put.json == {
        "name": "shelves/1/books/2",
        "contentType": "image/png",
        "size": "2",
        "data": "AP8=",
        "note": "n",
    }
    pieces = in_pieces(b"ab", b"cd")
    written = await client.send(
        "POST", "/v1/shelves/1/books/2/text?note=n", pieces, content_type="text/plain"
    )
    assert (written.json["size"], written.json["note"]) == ("4", "n")
    assert [(r.name, r.cover.data) for r in bookstore.received[-1].requests] == [
        ("shelves/1/books/2", b"ab"),
        ("", b"cd"),
    ]


# servicers of every style, interceptors, mounting


class Plain:
    """A servicer of plain functions, as synchronous gRPC code is."""

    def __init__(self, pb: Any) -> None:
        self.pb = pb

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

    def GetShelf(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata((("a", "b"),))
        assert context.is_active()
        return self.pb.Shelf(name=request.name)

    def DeleteShelf(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("not empty")
        return empty_pb2.Empty()

    def WatchBooks(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.count):
            yield self.pb.Book(title=str(number))

    def ImportBooks(self, requests: Iterator[Any], context: Any) -> Any:
        return self.pb.ImportBooksResponse(titles=[request.book.title for request in requests])


async def test_plain_functions_are_servicers_too(rest_client: Any, bookstore_contract: Any) -> None:
    client = rest_client(servicer=Plain(bookstore_contract.pb))
    got = await client.send("GET", "/v1/shelves/1")
    assert (got.json, got.headers["grpc-trailer-a"]) == ({"name": "shelves/1"}, "b")
    assert (await client.send("DELETE", "/v1/shelves/1")).json == {"code": 9, "message": "not empty"}
    assert (await client.send("GET", "/v1/shelves")).json == {"code": 12, "message": "ListShelves"}
    watched = await client.send("GET", "/v1/shelves/1/books:watch?count=2")
    assert watched.body == b'{"title":"0"}\n{"title":"1"}\n'
    imported = await client.send("POST", "/v1/shelves/1/books:import", [{"book": {"title": "a"}}])
    assert imported.json == {"titles": ["a"]}


async def test_a_handler_may_read_and_write_through_its_context(
    rest_client: Any, bookstore_contract: Any
) -> None:
    pb = bookstore_contract.pb

    class Writer(bookstore_contract.grpc.BookstoreServicer):  # type: ignore[misc]
        async def WatchBooks(self, request: Any, context: Any) -> None:
            for number in range(request.count):
                await context.write(pb.Book(title=str(number)))
            if request.fail_code:
                await context.abort_with_status(Failing())

        async def ImportBooks(self, requests: Any, context: Any) -> Any:
            titles = []
            while (request := await context.read()) is not grpc.aio.EOF:
                titles.append(request.book.title)
            return pb.ImportBooksResponse(titles=titles)

    class Failing(grpc.Status):
        code = grpc.StatusCode.DATA_LOSS
        details = "gone"
        trailing_metadata = (
            (
                "grpc-status-details-bin",
                status_pb2.Status(code=15, message="wholly gone").SerializeToString(),
            ),
        )

    client = rest_client(servicer=Writer())
    watched = await client.send("GET", "/v1/shelves/1/books:watch?count=2&fail_code=1")
    assert watched.body.splitlines()[-1] == b'{"error":{"code":15,"message":"wholly gone"}}'
    assert len(watched.body.splitlines()) == 3
    imported = await client.send("POST", "/v1/shelves/1/books:import", [{}, {"book": {"title": "b"}}])
    assert imported.json == {"titles": ["", "b"]}


class Noting(grpc.aio.ServerInterceptor):
    """An interceptor in grpc's own form: notes calls, refuses without a token, wraps the handler."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        self.notes.append(f"{self.name} {handler_call_details.method}")
        metadata = dict(handler_call_details.invocation_metadata)
        handler = await continuation(handler_call_details)
        if self.name == "outer" and "authorization" not in metadata:

            async def refuse(request: Any, context: Any) -> Any:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

            return grpc.unary_unary_rpc_method_handler(
                refuse, handler.request_deserializer, handler.response_serializer
            )
        return handler


async def test_the_interceptors_of_the_grpc_server_apply(rest_client: Any, bookstore: Any) -> None:
    notes: list[str] = []
    client = rest_client(interceptors=[Noting("outer", notes), Noting("inner", notes)])
    refused = await client.send("GET", "/v1/shelves/1")
    assert (refused.status, refused.json) == (401, {"code": 16, "message": "who are you?"})
    assert refused.headers["www-authenticate"] == "Bearer"
    assert not bookstore.received
    assert (await client.send("GET", "/v1/shelves/1", authorization="Bearer x")).status == 200
    method = "/example.bookstore.v1.Bookstore/GetShelf"
    assert notes == [f"outer {method}", f"inner {method}"] * 2


async def test_an_abort_counts_whatever_is_caught_on_the_way_out(
    rest_client: Any, bookstore_contract: Any
) -> None:
    ended: list[Any] = []

    class Stubborn(bookstore_contract.grpc.BookstoreServicer):  # type: ignore[misc]
        async def GetShelf(self, request: Any, context: Any) -> Any:
            context.add_done_callback(lambda c: ended.append((c.done(), c.code())))
            try:
                await context.abort(grpc.StatusCode.ABORTED, "no")
            except Exception:  # noqa: BLE001 — the stubbornness under test
                raise RuntimeError("something else") from None

    answer = await rest_client(servicer=Stubborn()).send("GET", "/v1/shelves/1")
    assert answer.json == {"code": 10, "message": "no"}
    assert ended == [(True, 10)]


async def test_the_application_can_be_mounted_below_a_path(rest_client: Any, bookstore_harness: Any) -> None:
    app = Starlette(routes=[Mount("/api", rest_client().app), Mount("/", rest_client().app)])
    client = bookstore_harness.AsgiClient(app)
    for prefix in ("/api", ""):
        answer = await client.send("GET", f"{prefix}/v1/theme/rock%2Froll/shelf")
        assert answer.json["theme"] == "rock/roll"
    assert (await client.send("GET", "/api/v1/nothing")).json["details"][0]["metadata"][
        "path"
    ] == "/v1/nothing"


async def test_the_path_template_is_left_for_middleware(rest_client: Any, bookstore_harness: Any) -> None:
    seen: list[dict[str, Any]] = []
    inner = rest_client().app

    async def middleware(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope)
        await inner(scope, receive, send)

    await bookstore_harness.AsgiClient(middleware).send("GET", "/v1/shelves/1/books/2/3")
    assert seen[0]["penstock.route"] == "/v1/{name=shelves/*/books/**}"


async def test_the_peer_is_the_http_client(rest_client: Any, bookstore_contract: Any) -> None:
    peers: list[str] = []

    class Peers(bookstore_contract.grpc.BookstoreServicer):  # type: ignore[misc]
        async def GetShelf(self, request: Any, context: Any) -> Any:
            peers.append(context.peer())
            return bookstore_contract.pb.Shelf()

    await rest_client(servicer=Peers()).send("GET", "/v1/shelves/1")
    assert peers == ["ipv4:127.0.0.1:5000"]


async def test_lifespan_is_answered(rest_client: Any) -> None:
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(incoming)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    await rest_client().app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
