"""The bookstore for tests: compiled from its .proto at run time, served by a servicer that remembers what it
got.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import grpc
import grpc_tools
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SERVICE = "example.bookstore.v1.Bookstore"
PROTO = "example/bookstore/v1/bookstore.proto"


@dataclass(frozen=True)
class Contract:
    """The compiled contract."""

    descriptors: bytes
    pb: ModuleType
    grpc: ModuleType


@cache
def contract() -> Contract:
    """Compile the contract, once a process."""
    out = tempfile.mkdtemp(prefix="bookstore-")
    includes = [HERE, ROOT / "protos/third_party", Path(grpc_tools.__file__).parent / "_proto"]
    code = protoc.main(
        [
            "protoc",
            *(f"-I{path}" for path in includes),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--descriptor_set_out={out}/bookstore.binpb",
            "--include_imports",
            "--include_source_info",
            PROTO,
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    sys.path.append(out)
    module = PROTO.removesuffix(".proto").replace("/", ".")
    return Contract(
        descriptors=Path(out, "bookstore.binpb").read_bytes(),
        pb=importlib.import_module(f"{module}_pb2"),
        grpc=importlib.import_module(f"{module}_pb2_grpc"),
    )


@dataclass
class Received:
    """One call as the servicer saw it."""

    method: str
    requests: list[Any]
    metadata: dict[str, Any]
    time_remaining: float | None
    cancelled: bool = False


@dataclass
class Bookstore:
    """What the servicer remembers; `servicer()` gives it its generated base class."""

    received: list[Received] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, method: str, request: Any, context: Any) -> Received:
        """Remember a call."""
        requests = request if isinstance(request, list) else [request]
        remaining = context.time_remaining()
        # a server of grpc.aio tells a call without a deadline by an enormous time
        remaining = None if remaining is None or remaining > 1e9 else remaining
        call = Received(method, requests, dict(context.invocation_metadata() or ()), remaining)
        self.received.append(call)
        self.asked.set()
        return call

    def servicer(self) -> Any:
        """The servicer."""
        return make_servicer(self)


def make_servicer(store: Bookstore) -> Any:
    """A servicer of the compiled contract over a store."""
    pb, rpc = contract().pb, contract().grpc

    class Servicer(rpc.BookstoreServicer):  # type: ignore[misc]
        async def GetShelf(self, request: Any, context: Any) -> Any:
            store.note("GetShelf", request, context)
            await context.send_initial_metadata((("shelf-colour", "green"), ("shelf-bin", b"\x00\xff")))
            context.set_trailing_metadata((("shelf-weight", "12"),))
            return pb.Shelf(name=request.name, theme=request.theme or "history", book_count=2**53 + 1)

        async def ListShelves(self, request: Any, context: Any) -> Any:
            store.note("ListShelves", request, context)
            shelves = [pb.Shelf(name=f"shelves/{number}") for number in range(request.page_size)]
            return pb.ListShelvesResponse(shelves=shelves, next_page_token=request.page_token)

        async def CreateShelf(self, request: Any, context: Any) -> Any:
            store.note("CreateShelf", request, context)
            return request.shelf

        async def DeleteShelf(self, request: Any, context: Any) -> Any:
            store.note("DeleteShelf", request, context)
            if request.name.endswith("/missing"):
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.name}")
            return importlib.import_module("google.protobuf.empty_pb2").Empty()

        async def MergeShelves(self, request: Any, context: Any) -> Any:
            store.note("MergeShelves", request, context)
            return pb.Shelf(name=request.name, theme=request.other_shelf)

        async def GetBook(self, request: Any, context: Any) -> Any:
            store.note("GetBook", request, context)
            return pb.Book(name=request.name, isbn=request.isbn, kind=request.kind)

        async def CreateBook(self, request: Any, context: Any) -> Any:
            store.note("CreateBook", request, context)
            return request.book

        async def UpdateBook(self, request: Any, context: Any) -> Any:
            store.note("UpdateBook", request, context)
            return request.book

        async def SearchBooks(self, request: Any, context: Any) -> Any:
            store.note("SearchBooks", request, context)
            return pb.SearchBooksResponse(request=request)

        async def ListTitles(self, request: Any, context: Any) -> Any:
            store.note("ListTitles", request, context)
            return pb.SearchBooksResponse(titles=request.words)

        async def FirstBook(self, request: Any, context: Any) -> Any:
            store.note("FirstBook", request, context)
            return pb.SearchBooksResponse(first=pb.Book(title=" ".join(request.words)))

        async def PutTitles(self, request: Any, context: Any) -> Any:
            store.note("PutTitles", request, context)
            return pb.SearchBooksResponse(titles=request.titles)

        async def WatchBooks(self, request: Any, context: Any) -> AsyncIterator[Any]:
            call = store.note("WatchBooks", request, context)
            try:
                for number in range(request.count):
                    if number and request.gap_ms:
                        await asyncio.sleep(request.gap_ms / 1000)
                    yield pb.Book(name=f"{request.parent}/books/{number}", title=f"line\nbreak {number}")
            except (asyncio.CancelledError, GeneratorExit):
                call.cancelled = True
                store.cancelled.set()
                raise
            if request.fail_code:
                await context.abort(status_of(request.fail_code), "the watch broke")

        async def ImportBooks(self, requests: Any, context: Any) -> Any:
            seen = [request async for request in requests]
            store.note("ImportBooks", seen, context)
            return pb.ImportBooksResponse(
                count=len(seen), titles=[r.book.title for r in seen], parents=[r.parent for r in seen]
            )

        async def GetCover(self, request: Any, context: Any) -> Any:
            store.note("GetCover", request, context)
            return http_body("image/png", b"\x89PNG\x00" + request.name.encode())

        async def ReadText(self, request: Any, context: Any) -> AsyncIterator[Any]:
            store.note("ReadText", request, context)
            for piece in (b"Once upon ", b"a time", b".\n"):
                yield http_body("text/plain", piece)

        async def PutCover(self, request: Any, context: Any) -> Any:
            store.note("PutCover", request, context)
            return pb.CoverInfo(
                name=request.name,
                content_type=request.cover.content_type,
                size=len(request.cover.data),
                data=request.cover.data,
                note=request.note,
            )

        async def WriteText(self, requests: Any, context: Any) -> Any:
            seen = [request async for request in requests]
            store.note("WriteText", seen, context)
            data = b"".join(request.cover.data for request in seen)
            return pb.CoverInfo(name=seen[0].name, note=seen[0].note, size=len(data), data=data)

        async def Fail(self, request: Any, context: Any) -> Any:
            call = store.note("Fail", request, context)
            try:
                await asyncio.sleep(request.wait_ms / 1000)
            except asyncio.CancelledError:
                call.cancelled = True
                store.cancelled.set()
                raise
            trailing = ()
            if request.detailed:
                trailing = (("grpc-status-details-bin", detailed(request).SerializeToString()),)
            await context.abort(status_of(request.code), request.text, trailing)

        async def LookAtShelf(self, request: Any, context: Any) -> Any:
            store.note("LookAtShelf", request, context)
            return pb.Shelf(name=request.name, theme="seen")

        async def Echo(self, request: Any, context: Any) -> Any:
            store.note("Echo", request, context)
            return request

    return Servicer()


def http_body(content_type: str, data: bytes) -> Any:
    """A google.api.HttpBody."""
    return importlib.import_module("google.api.httpbody_pb2").HttpBody(content_type=content_type, data=data)


def detailed(request: Any) -> status_pb2.Status:
    """A Status with the details that a client cares for."""
    details = []
    for message in (
        error_details_pb2.ErrorInfo(reason="BECAUSE", domain="bookstore.example", metadata={"shelf": "1"}),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="shelf", description="wrong")]
        ),
        error_details_pb2.RetryInfo(),
    ):
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    return status_pb2.Status(code=request.code, message=request.text, details=details)


def status_of(number: int) -> grpc.StatusCode:
    """The gRPC code of a number."""
    return next(code for code in grpc.StatusCode if code.value[0] == number)


@dataclass
class Answer:
    """What an ASGI application answered; ``chunks`` are the pieces of the body as they were sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo in a Status."""
        return str(self.json["details"][0]["reason"])

    @property
    def violations(self) -> dict[str, str]:
        """Field → description of the BadRequest in a Status."""
        found = [d for d in self.json.get("details", []) if d["@type"].endswith("BadRequest")]
        return {v["field"]: v["description"] for d in found for v in d["fieldViolations"]}


@dataclass
class AsgiClient:
    """Talks ASGI to an application, without a server between: raw targets, slow bodies, early disconnects."""

    app: Any
    root_path: str = ""

    async def send(
        self,
        method: str,
        target: str,
        body: Any = b"",
        *,
        gone: asyncio.Event | None = None,
        begun: asyncio.Event | None = None,
        **headers: str,
    ) -> Answer:
        """One request.

        ``body`` is bytes, an iterator of bytes, or anything else as JSON; ``gone`` is set when the client
        hangs up; ``begun`` gets set with the first piece of the answer's body.
        """
        path, _, query = target.partition("?")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes) and not hasattr(body, "__anext__"):
            body = json.dumps(body).encode()
            named.setdefault("content-type", "application/json")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": self.root_path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()],
            "client": ("127.0.0.1", 5000),
            "server": ("test", 80),
            "scheme": "http",
        }
        answer = Answer()
        pieces = _pieces(body)

        async def receive() -> dict[str, Any]:
            piece = await anext(pieces, None)
            if piece is not None:
                return {"type": "http.request", "body": piece[0], "more_body": piece[1]}
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif message.get("body"):
                answer.chunks.append(message["body"])
                if begun is not None:
                    begun.set()

        await self.app(scope, receive, send)
        return answer


async def _pieces(body: Any) -> AsyncIterator[tuple[bytes, bool]]:
    if isinstance(body, bytes):
        yield body, False
        return
    async for piece in body:
        yield piece, True
    yield b"", False
