"""Query parameters into request fields."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from chassis import errors
from chassis.rest.bindings import read_bindings
from chassis.rest.descriptors import load_pool
from chassis.rest.query import QueryBinder
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def bind(bookstore_contract: Any) -> Any:
    """Binds a query to a fresh request of the binding with the given method and path template."""
    pool = load_pool(bookstore_contract.descriptors)
    bindings = list(read_bindings(pool, ["example.bookstore.v1.Bookstore"]))

    def run(query: str, http: str = "GET /v1/books:search", **options: Any) -> dict[str, Any]:
        method, path = http.split(" ")
        binding = next(b for b in bindings if b.http_method == method and b.template.text == path)
        message = binding.method.request()
        QueryBinder(binding, **options).bind(query.encode(), message)
        found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
        return found

    return run


BOUND = [
    ("nothing", "", {}),
    ("empty pieces", "&&order_by=a&", {"order_by": "a"}),
    ("JSON name", "orderBy=a", {"order_by": "a"}),
    ("blank as plus", "order_by=a+b%2Bc", {"order_by": "a b+c"}),
    ("encoded name", "order%5Fby=a", {"order_by": "a"}),
    ("repeated", "words=a&words=b", {"words": ["a", "b"]}),
    ("repeated under both names", "scores=1&scores=2.5", {"scores": [1.0, 2.5]}),
    ("enum by name and number", "kinds=NOVEL&kinds=2&kinds=9", {"kinds": ["NOVEL", "POETRY", 9]}),
    ("nested", "filter.min_pages=1&filter.maxPages=2", {"filter": {"min_pages": 1, "max_pages": 2}}),
    ("nested enum", "filter.kind=NOVEL", {"filter": {"kind": "NOVEL"}}),
    ("very nested", "nest.nest.nest.leaf=x", {"nest": {"nest": {"nest": {"leaf": "x"}}}}),
    ("time", "published_after=2020-01-01T00:00:00Z", {"published_after": "2020-01-01T00:00:00Z"}),
    ("span", "max_age=0.5s", {"max_age": "0.500s"}),
    ("mask", "read_mask=title,publishTime", {"read_mask": "title,publishTime"}),
    ("mask in contract names", "read_mask=title,publish_time", {"read_mask": "title,publishTime"}),
    ("wrapper of a default", "limit=0&in_stock=false", {"limit": 0, "in_stock": False}),
    ("bytes", "like=-_8", {"like": "+/8="}),
    ("optional", "strict_match=false", {"strict_match": False}),
    ("uint64", "big=18446744073709551615", {"big": "18446744073709551615"}),
    ("special float", "scores=NaN&scores=-Infinity", {"scores": ["NaN", "-Infinity"]}),
]


@pytest.mark.parametrize(("query", "wanted"), [row[1:] for row in BOUND], ids=[row[0] for row in BOUND])
def test_a_query_sets_fields(bind: Any, query: str, wanted: dict[str, Any]) -> None:
    assert bind(query) == wanted


REFUSED = [
    ("unknown", "colour=red", "colour", "has no field 'colour'", "UNKNOWN_FIELD"),
    ("unknown nested", "filter.colour=red", "filter.colour", "Filter has no field 'colour'", "UNKNOWN_FIELD"),
    ("into a scalar", "order_by.x=1", "order_by.x", "has no fields of its own", "INVALID_VALUE"),
    (
        "into a time",
        "published_after.seconds=1",
        "published_after.seconds",
        "written as one value",
        "INVALID_VALUE",
    ),
    ("map", "labels[a]=b", "labels[a]", "is a map", "INVALID_VALUE"),
    (
        "map with a dot",
        "labels.a=b",
        "labels.a",
        "is a map; maps cannot be given in the query",
        "INVALID_VALUE",
    ),
    ("map as a whole", "labels=b", "labels", "is a map", "INVALID_VALUE"),
    (
        "list of messages",
        "authors.given_name=x",
        "authors.given_name",
        "is a list of messages",
        "INVALID_VALUE",
    ),
    ("message", "filter=x", "filter", "filter.min_pages, filter.max_pages", "INVALID_VALUE"),
    ("bad number", "filter.min_pages=x", "filter.min_pages", "expected a 32-bit integer", "INVALID_VALUE"),
    ("bad bool", "in_stock=1", "in_stock", "expected true or false", "INVALID_VALUE"),
    ("bad time", "published_after=noon", "published_after", "RFC 3339", "INVALID_VALUE"),
    ("twice", "order_by=a&orderBy=b", "orderBy", "given more than once", "INVALID_VALUE"),
    ("both of a oneof", "order_by=a&like=AA", "like", "exclude each other", "INVALID_VALUE"),
    ("empty name", "=x", "", "has no field ''", "UNKNOWN_FIELD"),
    ("brackets on a list", "words[0]=a", "words[0]", "has no field", "UNKNOWN_FIELD"),
    ("dots", "filter..kind=x", "filter..kind", "has no field ''", "UNKNOWN_FIELD"),
]


@pytest.mark.parametrize(
    ("query", "field", "text", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_parameter_that_sets_no_field_is_refused(
    bind: Any, query: str, field: str, text: str, reason: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        bind(query)
    violation = caught.value.violations[0]
    assert (violation.field, violation.reason) == (field, reason)
    assert text in violation.description
    assert "query parameter" in str(caught.value)


def test_what_path_and_body_hold_is_not_in_the_query(bind: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="the path already gives this field"):
        bind("name=x", "GET /v1/{name=shelves/*}")
    with pytest.raises(errors.InvalidArgument, match="belongs in the request body"):
        bind("shelf.theme=x", "POST /v1/shelves")
    with pytest.raises(errors.InvalidArgument, match="belongs in the request body"):
        bind("words=x", "POST /v1/books:search")
    assert bind("shelf_id=x", "POST /v1/shelves") == {"shelf_id": "x"}


def test_ignored_parameters_are_no_mistake(bind: Any) -> None:
    assert bind("alt=json&words=a", ignored=frozenset(["alt"])) == {"words": ["a"]}


def test_a_query_that_is_not_utf8_is_refused(bind: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="is not percent-encoded UTF-8"):
        bind("order_by=%ff")


def test_a_query_of_thousands_of_parameters_is_refused(bind: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="more than 1000"):
        bind("&".join(["words=a"] * 1001))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
searches = st.fixed_dictionaries(
    {},
    optional={
        "words": st.lists(texts, min_size=1, max_size=4),
        "order_by": texts,
        "filter.min_pages": st.integers(-(2**31), 2**31 - 1).filter(bool),
        "filter.authorNames": st.lists(texts, min_size=1, max_size=3),
        "nest.nest.leaf": texts.filter(bool),
        "kinds": st.lists(st.sampled_from(["NOVEL", "POETRY"]), min_size=1, max_size=3),
        "big": st.integers(1, 2**64 - 1),
        "scores": st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
        "limit": st.integers(-(2**31), 2**31 - 1),
    },
)


@given(wanted=searches, plus=st.booleans())
def test_what_is_written_into_a_query_is_what_is_read(bind: Any, wanted: dict[str, Any], plus: bool) -> None:
    query = urlencode(wanted, doseq=True) if plus else urlencode(wanted, doseq=True, quote_via=quote)
    found = bind(query)
    for name, value in wanted.items():
        at: Any = found
        for part in name.replace("authorNames", "author_names").split("."):
            at = at[part]
        assert at == (str(value) if name == "big" else value)


@given(query=st.text("abcords=&%+.kinfilter_1", max_size=30))
def test_any_query_at_all_is_bound_or_refused(bind: Any, query: str) -> None:
    try:
        bind(query)
    except errors.InvalidArgument as error:
        assert str(error)  # noqa: PT017 — a refusal is one of two right outcomes
