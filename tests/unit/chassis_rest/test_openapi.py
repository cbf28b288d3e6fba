"""The OpenAPI document: valid, complete, and saying what the transcoder does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from buf.validate import validate_pb2
from chassis import openapi, rest
from chassis.openapi import rules
from chassis.openapi.paths import singular
from google.protobuf import descriptor_pb2, descriptor_pool
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette

INFO = openapi.Info(
    title="Bookstore", version="1.2.3", description="Books.", servers=["https://books.example"]
)
SERVICE = "example.bookstore.v1.Bookstore"


@pytest.fixture(scope="module")
def document(bookstore_contract: Any) -> dict[str, Any]:
    """The document of the bookstore."""
    return openapi.document(bookstore_contract.descriptors, [SERVICE], INFO)


@pytest.fixture(scope="module")
def operation(document: dict[str, Any]) -> Any:
    """An operation by its id."""

    def find(name: str) -> Any:
        return next(
            o for item in document["paths"].values() for o in item.values() if o.get("operationId") == name
        )

    return find


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][f"example.bookstore.v1.{name}"]


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_the_document_of_every_penstock_service_is_valid() -> None:
    descriptors = rest.penstock_descriptors()
    services = [f"{f.package}.{s.name}" for f in descriptors.file for s in f.service]
    found = openapi.document(descriptors, services, openapi.Info(title="Penstock", version="0"))
    OpenAPIV31SpecValidator(found).validate()
    assert found["paths"]
    bare = [
        o["operationId"] for item in found["paths"].values() for o in item.values() if not o["description"]
    ]
    assert bare in (
        [],
        [b for b in bare if b.startswith("Operations_")],
    )  # google's own file is stored without comments


def test_every_binding_is_there_under_its_http_method(document: dict[str, Any]) -> None:
    assert set(document["paths"]["/v1/shelves/{shelf}"]) == {"get", "delete", "x-other-methods"}
    assert set(document["paths"]["/v1/shelves/{shelf}"]["x-other-methods"]) == {"REPORT"}
    assert set(document["paths"]["/v1/shelves/{shelf}/books/{book}"]) == {"patch", "put"}
    assert "/v1/books:search" in document["paths"]
    assert not [path for path in document["paths"] if "Chat" in path]


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [
        o["operationId"] for item in document["paths"].values() for name, o in item.items() if name[0] != "x"
    ]
    assert len(ids) == len(set(ids))
    assert {"Bookstore_GetShelf", "Bookstore_GetShelf_2"} <= set(ids)


def test_a_name_of_several_segments_is_several_parameters(operation: Any) -> None:
    found = operation("Bookstore_GetBook")
    path = [p for p in found["parameters"] if p["in"] == "path"]
    assert [(p["name"], p["required"]) for p in path] == [("shelf", True), ("name", True)]
    assert "May hold slashes" in path[1]["description"]


def test_a_path_parameter_of_one_segment_has_the_schema_of_its_field(operation: Any) -> None:
    found = {
        p["name"]: p["schema"] for p in operation("Bookstore_GetBook_3")["parameters"] if p["in"] == "path"
    }
    assert found["number"] == {"type": "integer", "format": "int32"}
    assert found["kind"] == {"$ref": "#/components/schemas/example.bookstore.v1.Kind"}
    assert found["rare"] == {"type": "boolean"}


def test_query_parameters_are_the_fields_that_path_and_body_leave(operation: Any) -> None:
    names = {p["name"] for p in operation("Bookstore_SearchBooks")["parameters"]}
    assert {
        "words",
        "filter.minPages",
        "filter.kind",
        "publishedAfter",
        "readMask",
        "limit",
        "nest.leaf",
    } <= names
    assert not [name for name in names if name.startswith(("labels", "authors"))]
    assert [p["name"] for p in operation("Bookstore_CreateShelf")["parameters"]] == ["shelfId"]
    assert operation("Bookstore_SearchBooks_2")["parameters"] == []


def test_bodies_are_described_by_their_mapping(document: dict[str, Any], operation: Any) -> None:
    field = operation("Bookstore_CreateShelf")["requestBody"]
    assert field["required"]
    assert field["content"]["application/json"]["schema"]["$ref"].endswith("v1.Shelf")
    whole = operation("Bookstore_MergeShelves")["requestBody"]["content"]["application/json"]["schema"]
    assert list(whole["properties"]) == ["otherShelf"]
    listed = operation("Bookstore_PutTitles")["requestBody"]["content"]["application/json"]["schema"]
    assert listed == {"type": "array", "items": {"type": "string"}}
    assert set(operation("Bookstore_PutCover")["requestBody"]["content"]) == {"*/*"}
    streamed = operation("Bookstore_ImportBooks")["requestBody"]["content"]
    assert set(streamed) == {"application/x-ndjson", "application/json"}
    assert "requestBody" not in operation("Bookstore_GetShelf")


def test_answers_have_their_media_types_and_failures_are_a_status(
    document: dict[str, Any], operation: Any
) -> None:
    assert set(operation("Bookstore_WatchBooks")["responses"]["200"]["content"]) == {
        "application/x-ndjson",
        "text/event-stream",
    }
    titles = operation("Bookstore_ListTitles")["responses"]["200"]["content"]["application/json"]["schema"]
    assert titles["type"] == "array"
    assert set(operation("Bookstore_GetCover")["responses"]["200"]["content"]) == {"*/*"}
    for item in document["paths"].values():
        for name, each in item.items():
            if not name.startswith("x-"):
                assert each["responses"]["4XX"] == each["responses"]["5XX"]
    failure = document["components"]["responses"]["Failure"]["content"]["application/json"]["schema"]
    assert failure == {"$ref": "#/components/schemas/google.rpc.Status"}
    assert set(document["components"]["schemas"]["google.rpc.Status"]["properties"]) == {
        "code",
        "message",
        "details",
    }


def test_comments_become_descriptions(document: dict[str, Any], operation: Any) -> None:
    listed = operation("Bookstore_ListShelves")
    assert listed["summary"] == "Lists shelves"
    assert listed["description"] == "Lists shelves.\n\nThe second paragraph of a comment."
    assert document["tags"] == [{"name": "Bookstore", "description": "Shelves full of books."}]
    assert schema(document, "Shelf")["description"] == "A shelf."
    assert schema(document, "Shelf")["properties"]["theme"]["description"] == "What it is about."
    assert "- `NOVEL` (1): A novel." in schema(document, "Kind")["description"]


def test_field_behaviour_becomes_required_and_read_only(document: dict[str, Any]) -> None:
    shelf = schema(document, "Shelf")
    assert shelf["required"] == ["theme"]
    assert shelf["properties"]["bookCount"]["readOnly"]
    assert "Identifies the resource." in shelf["properties"]["name"]["description"]


def test_fields_have_their_protojson_types(document: dict[str, Any]) -> None:
    found = {
        name: {k: v for k, v in s.items() if k != "description"}
        for name, s in schema(document, "Everything")["properties"].items()
    }
    assert found["anInt64"] == {"type": ["string", "integer"], "format": "int64"}
    assert found["aUint32"] == {"type": "integer", "format": "uint32", "minimum": 0}
    assert found["someBytes"] == {"type": "string", "contentEncoding": "base64"}
    assert found["time"] == {"type": "string", "format": "date-time"}
    assert found["wrappedString"] == {"type": ["string", "null"]}
    assert found["labels"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert found["byNumber"]["additionalProperties"]["$ref"].endswith("v1.Nest")
    assert found["any"]["required"] == ["@type"]
    assert found["null"] == {"type": "null"}
    assert "Excludes `right`." in schema(document, "Everything")["properties"]["left"]["description"]


def test_a_message_that_contains_itself_ends(document: dict[str, Any]) -> None:
    assert schema(document, "Nest")["properties"]["nest"]["$ref"].endswith("v1.Nest")


def test_security_servers_and_further_paths_come_from_the_caller(bookstore_contract: Any) -> None:
    extra = {"/v2/health": {"get": {"responses": {"200": {"description": "Alive."}}}}}
    described = openapi.Described(extra, {"x.y": {"type": "string"}}, {"Health": "Lives."})
    info = openapi.Info(title="x", version="1", bearer=False, described=[described])
    found = openapi.document(bookstore_contract.descriptors, [SERVICE], info)
    OpenAPIV31SpecValidator(found).validate()
    assert "security" not in found
    assert found["paths"]["/v2/health"] == extra["/v2/health"]
    assert found["components"]["schemas"]["x.y"] == {"type": "string"}
    assert found["tags"][-1] == {"name": "Health", "description": "Lives."}
    secured = openapi.document(bookstore_contract.descriptors, [SERVICE], INFO)
    assert secured["security"] == [{"bearer": []}]
    assert secured["servers"] == [{"url": "https://books.example"}]


@pytest.mark.parametrize(("model", "all_of_it"), [("{model}", True), ("{project}/{model}", False)])
def test_the_open_inference_protocol_is_described(model: str, all_of_it: bool) -> None:
    described = openapi.open_inference(model, statistics=all_of_it, repository=all_of_it)
    info = openapi.Info(title="x", version="1", described=[described])
    found = openapi.document(rest.penstock_descriptors(), [], info)
    OpenAPIV31SpecValidator(found).validate()
    assert set(found["paths"]) >= {"/v2/health/ready", f"/v2/models/{model}/versions/{{version}}/infer"}
    for path in ("/v2/models/stats", f"/v2/repository/models/{model}/load"):
        assert (path in found["paths"]) is all_of_it
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', orjson.dumps(found).decode()))
    assert {name for name in described.schemas if name not in used} == set() if all_of_it else used


def test_contract_names_are_an_option(bookstore_contract: Any) -> None:
    info = openapi.Info(title="x", version="1", preserve_proto_field_names=True)
    found = openapi.document(bookstore_contract.descriptors, [SERVICE], info)
    assert "book_count" in schema(found, "Shelf")["properties"]
    search = found["paths"]["/v1/books:search"]["get"]["parameters"]
    assert "filter.min_pages" in {parameter["name"] for parameter in search}


def test_a_pool_has_no_comments_and_is_described_all_the_same(bookstore_contract: Any) -> None:
    found = openapi.document(bookstore_contract.pb.DESCRIPTOR.pool, [SERVICE], INFO)
    shelf = found["paths"]["/v1/shelves/{shelf}"]["get"]
    assert (shelf["summary"], shelf["description"]) == ("GetShelf", "")


@pytest.mark.parametrize(
    ("collection", "one"),
    [
        ("shelves", "shelf"),
        ("books", "book"),
        ("anomalies", "anomaly"),
        ("packages", "package"),
        ("keys", "key"),
        ("boxes", "box"),
        ("classes", "class"),
        ("leases", "lease"),
        ("replicas", "replica"),
        ("access", "access"),
    ],
)
def test_a_parameter_is_named_after_one_of_its_collection(collection: str, one: str) -> None:
    assert singular(collection) == one


# buf.validate

RULES = validate_pb2.FieldRules
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
INT32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


def field_with(given: validate_pb2.FieldRules, kind: Any = STRING, label: Any = 1) -> Any:
    """A field that has the rules, from a pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", syntax="proto3")
    field = file.message_type.add(name="X").field.add(name="f", number=1, type=kind, label=label)
    field.options.Extensions[validate_pb2.field].CopyFrom(given)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindMessageTypeByName("X").fields_by_name["f"]


IF_ZERO = validate_pb2.IGNORE_IF_ZERO_VALUE
MAPPED = [
    ("pattern", RULES(string={"pattern": "^a+$"}), STRING, {"pattern": "^a+$"}),
    ("RE2 anchors", RULES(string={"pattern": r"\Aa+\z"}), STRING, {"pattern": "^a+$"}),
    ("lengths", RULES(string={"min_len": 1, "max_len": 9}), STRING, {"minLength": 1, "maxLength": 9}),
    ("length", RULES(string={"len": 5}), STRING, {"minLength": 5, "maxLength": 5}),
    ("prefix", RULES(string={"prefix": "a.b"}), STRING, {"pattern": r"^a\.b"}),
    ("suffix", RULES(string={"suffix": ".py"}), STRING, {"pattern": r"\.py$"}),
    ("choices", RULES(string={"in": ["a", "b"]}), STRING, {"enum": ["a", "b"]}),
    ("constant", RULES(string={"const": "a"}), STRING, {"const": "a"}),
    ("format", RULES(string={"uuid": True}), STRING, {"format": "uuid"}),
    (
        "pattern or nothing",
        RULES(string={"pattern": "^a$", "min_len": 1}, ignore=IF_ZERO),
        STRING,
        {"pattern": "^$|^a$"},
    ),
    ("switched off", RULES(string={"pattern": "a"}, ignore=validate_pb2.IGNORE_ALWAYS), STRING, {}),
    ("range", RULES(int32={"gte": 1, "lt": 9}), INT32, {"minimum": 1, "exclusiveMaximum": 9}),
    ("outside of a range", RULES(int32={"gt": 9, "lt": 1}), INT32, {}),
    ("range or zero", RULES(int32={"gte": 5}, ignore=IF_ZERO), INT32, {}),
]


@pytest.mark.parametrize(
    ("given", "kind", "wanted"), [row[1:] for row in MAPPED], ids=[row[0] for row in MAPPED]
)
def test_rules_become_keywords(given: validate_pb2.FieldRules, kind: Any, wanted: dict[str, Any]) -> None:
    assert rules.constraints(field_with(given, kind)) == wanted


def test_rules_of_lists_and_their_elements_become_keywords() -> None:
    given = RULES(
        repeated={"min_items": 1, "max_items": 3, "unique": True, "items": RULES(string={"min_len": 2})}
    )
    field = field_with(given, STRING, REPEATED)
    assert rules.constraints(field) == {"minItems": 1, "maxItems": 3, "uniqueItems": True}
    assert rules.item_constraints(field) == {"minLength": 2}


def test_cel_rules_are_told_in_words_and_required_is_required() -> None:
    field = field_with(
        RULES(required=True, cel=[validate_pb2.Rule(id="x", message="must rhyme", expression="true")])
    )
    assert rules.notes(field) == ["must rhyme"]
    assert rules.is_required(field)


# the routes


@pytest.fixture
def documentation(bookstore_contract: Any, bookstore_harness: Any) -> Any:
    """A client of the documentation's routes."""
    return bookstore_harness.AsgiClient(
        Starlette(routes=openapi.routes(bookstore_contract.descriptors, [SERVICE], INFO))
    )


async def test_the_document_is_served_and_cached_by_its_tag(
    documentation: Any, document: dict[str, Any]
) -> None:
    answer = await documentation.send("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == document
    again = await documentation.send("GET", "/openapi.json", if_none_match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def links(text: str) -> Iterator[str]:
    yield from re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", text)
    yield from re.findall(r"url\(([^)]*)\)", text)
    yield from re.findall(r"https?://[^\s\"'`]+", text)


async def test_the_page_needs_nothing_from_elsewhere(documentation: Any) -> None:
    page = await documentation.send("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    found = set(links(page.body.decode()))
    assert found == {"data:,", "docs/page.css", "docs/page.js", "openapi.json"}
    for name in found - {"openapi.json", "data:,"}:
        part = await documentation.send("GET", f"/{name}")
        assert part.status == 200
        assert not set(links(part.body.decode()))
