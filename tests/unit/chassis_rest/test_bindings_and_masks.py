"""Annotations that cannot be served are found at start-up; a PATCH without a mask gets one."""

from __future__ import annotations

from typing import Any

import pytest
from chassis import rest
from chassis.rest import mask
from chassis.rest.bindings import read_bindings
from chassis.rest.decode import Decoder
from chassis.rest.descriptors import load_pool
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

SERVICE = "example.bookstore.v1.Bookstore"


def with_rule(descriptors: bytes, **rule: Any) -> descriptor_pb2.FileDescriptorSet:
    """The bookstore with another rule on GetBook."""
    found = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    file = next(f for f in found.file if f.name.endswith("bookstore.proto"))
    method = next(m for m in file.service[0].method if m.name == "UpdateBook")
    method.options.Extensions[annotations_pb2.http].CopyFrom(http_pb2.HttpRule(**rule))
    return found


WRONG = [
    ("bad template", {"get": "/v1/{"}, r"UpdateBook: template '/v1/\{': expected a field name"),
    ("unknown variable", {"get": "/v1/{colour}"}, "path variable 'colour' is not a field of"),
    (
        "unknown nested variable",
        {"get": "/v1/{book.colour}"},
        "path variable 'book.colour' is not a field of",
    ),
    ("variable through a scalar", {"get": "/v1/{allow_missing.x}"}, "'allow_missing.x' is not a field of"),
    ("repeated variable", {"get": "/v1/{book.tags}"}, "'book.tags' is a repeated field or a map"),
    ("message variable", {"get": "/v1/{book}"}, "path variable 'book' is a message"),
    ("unknown body", {"post": "/v1/x", "body": "colour"}, "body 'colour' is not a field of"),
    ("nested body", {"post": "/v1/x", "body": "book.title"}, "body 'book.title' is not a field of"),
    (
        "unknown response body",
        {"get": "/v1/x", "response_body": "colour"},
        "response_body 'colour' is not a field",
    ),
    ("no path", {"body": "*"}, "an HTTP rule gives no path"),
    (
        "taken path",
        {"get": "/v1/shelves"},
        "GET /v1/shelves is taken by /example.bookstore.v1.Bookstore/ListShelves",
    ),
]


@pytest.mark.parametrize(("rule", "text"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_an_annotation_that_cannot_be_served_is_an_error_at_start(
    bookstore_contract: Any, rule: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        rest.asgi(with_rule(bookstore_contract.descriptors, **rule), [SERVICE], rest.InProcess())


def test_an_unknown_service_is_an_error_at_start(bookstore_contract: Any) -> None:
    with pytest.raises(ValueError, match=r"service 'example\.Nothing' is not in the descriptors"):
        rest.asgi(bookstore_contract.descriptors, ["example.Nothing"], rest.InProcess())


def test_a_descriptor_set_without_its_imports_is_an_error_at_start(bookstore_contract: Any) -> None:
    found = descriptor_pb2.FileDescriptorSet.FromString(bookstore_contract.descriptors)
    alone = descriptor_pb2.FileDescriptorSet(
        file=[f for f in found.file if f.name.endswith("bookstore.proto")]
    )
    with pytest.raises(TypeError, match=r"lacks 'google/api/annotations\.proto', imported by"):
        rest.asgi(alone, [SERVICE], rest.InProcess())


def test_a_descriptor_set_in_any_order_is_taken(bookstore_contract: Any) -> None:
    found = descriptor_pb2.FileDescriptorSet.FromString(bookstore_contract.descriptors)
    turned = descriptor_pb2.FileDescriptorSet(file=reversed(found.file))
    assert load_pool(turned).FindServiceByName(SERVICE).full_name == SERVICE


def test_a_pool_is_taken_as_it_is(bookstore_contract: Any) -> None:
    pool = bookstore_contract.pb.DESCRIPTOR.pool
    assert load_pool(pool) is pool
    assert any(read_bindings(pool, [SERVICE]))


def test_additional_bindings_are_bindings_of_the_same_method(bookstore_contract: Any) -> None:
    bindings = list(read_bindings(load_pool(bookstore_contract.descriptors), [SERVICE]))
    assert [b.template.text for b in bindings if b.method.name == "GetShelf"] == [
        "/v1/{name=shelves/*}",
        "/v1/theme/{theme}/shelf",
    ]
    assert not [b for b in bindings if b.method.name == "Chat"]


MASKS = [
    ("nothing", {}, []),
    (
        "scalars in contract names",
        {"title": "x", "publishTime": "2020-01-01T00:00:00Z"},
        ["title", "publish_time"],
    ),
    ("null clears", {"title": None, "format": None}, ["title", "format"]),
    ("nested", {"format": {"pages": 1, "size": {"width": 2}}}, ["format.pages", "format.size.width"]),
    ("empty nested", {"format": {}}, ["format"]),
    (
        "lists and maps whole",
        {"tags": ["a"], "authors": [{"givenName": "x"}], "stock": {"a": 1}},
        ["tags", "authors", "stock"],
    ),
    ("output only left out", {"title": "x", "createTime": "2020-01-01T00:00:00Z"}, ["title"]),
    ("bound by the path left out", {"name": "shelves/1/books/2", "title": "x"}, ["title"]),
]


@pytest.mark.parametrize(("body", "wanted"), [row[1:] for row in MASKS], ids=[row[0] for row in MASKS])
def test_a_mask_says_what_the_body_mentions(
    bookstore_contract: Any, body: dict[str, Any], wanted: list[str]
) -> None:
    decoder = Decoder(load_pool(bookstore_contract.descriptors))
    found = mask.paths(body, bookstore_contract.pb.Book.DESCRIPTOR, decoder.names, frozenset(["name"]))
    assert found == wanted


async def test_a_patch_without_a_mask_gets_one_and_with_one_keeps_it(
    rest_client: Any, bookstore: Any
) -> None:
    client = rest_client()
    await client.send("PATCH", "/v1/shelves/1/books/2", {"title": "x", "format": {"pages": 3}})
    await client.send("PATCH", "/v1/shelves/1/books/2?update_mask=title", {"title": "x", "isbn": "1"})
    await client.send("PUT", "/v1/shelves/1/books/2", {"title": "x"})
    assert [list(c.requests[0].update_mask.paths) for c in bookstore.received] == [
        ["title", "format.pages"],
        ["title"],
        [],
    ]
    assert bookstore.received[0].requests[0].book.name == "shelves/1/books/2"
