"""Which binding a path finds, and what its variables take."""

from __future__ import annotations

import re

import pytest
from chassis.rest.router import Match, NoMatch, RouteConflict, Router, capture
from chassis.rest.template import Template, Wildcard, parse
from hypothesis import given
from hypothesis import strategies as st

ROUTES = [
    ("GET", "/v1/shelves"),
    ("GET", "/v1/{name=shelves/*}"),
    ("DELETE", "/v1/{name=shelves/*}"),
    ("GET", "/v1/shelves/special"),
    ("GET", "/v1/{name=shelves/*/books/**}"),
    ("POST", "/v1/{name=shelves/*/books/*}:move"),
    ("POST", "/v1/shelves/*/{rest=**}"),
    ("GET", "/v1/{name=**}"),
    ("GET", "/v1/books:search"),
    ("GET", "/v1/{name=shelves/*}:look"),
    ("*", "/any/{thing}"),
    ("GET", "/any/thing"),
    ("GET", "/"),
]

FOUND = [
    ("literal", "GET", "/v1/shelves", "/v1/shelves"),
    ("wildcard", "GET", "/v1/shelves/1", "/v1/{name=shelves/*}"),
    ("by method", "DELETE", "/v1/shelves/1", "/v1/{name=shelves/*}"),
    ("literal before wildcard", "GET", "/v1/shelves/special", "/v1/shelves/special"),
    ("wildcard when the literal lacks the method", "DELETE", "/v1/shelves/special", "/v1/{name=shelves/*}"),
    ("rest with many", "GET", "/v1/shelves/1/books/a/b/c", "/v1/{name=shelves/*/books/**}"),
    ("rest with none", "GET", "/v1/shelves/1/books", "/v1/{name=shelves/*/books/**}"),
    ("verb", "POST", "/v1/shelves/1/books/2:move", "/v1/{name=shelves/*/books/*}:move"),
    ("verb that belongs elsewhere is text", "GET", "/v1/shelves/1:search", "/v1/{name=shelves/*}"),
    ("verb under another method is refused, not text", "GET", "/v1/books:search", "/v1/books:search"),
    ("less specific when nothing else", "POST", "/v1/shelves/1/books/2", "/v1/shelves/*/{rest=**}"),
    ("backtracking", "GET", "/v1/shelves/1/chairs", "/v1/{name=**}"),
    ("unknown verb is text", "GET", "/v1/shelves/1:burn", "/v1/{name=shelves/*}"),
    ("any method", "PURGE", "/any/x", "/any/{thing}"),
    ("any method beside a literal", "PUT", "/any/thing", "/any/{thing}"),
    ("root", "GET", "/", "/"),
    ("encoded literal", "GET", "/v1/%73helves", "/v1/shelves"),
    ("encoded colon is no verb", "GET", "/v1/books%3Asearch", "/v1/{name=**}"),
]


@pytest.fixture(scope="module")
def router() -> Router[str]:
    router: Router[str] = Router()
    for method, template in ROUTES:
        router.add(method, parse(template), template)
    return router


@pytest.mark.parametrize(
    ("method", "path", "wanted"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND]
)
def test_the_most_specific_template_with_the_method_is_found(
    router: Router[str], method: str, path: str, wanted: str
) -> None:
    found = router.match(method, path)
    assert isinstance(found, Match)
    assert found.target == wanted


MISSED = [
    ("nothing there", "GET", "/v2/x", set()),
    ("other method", "PATCH", "/v1/shelves/1", {"GET", "DELETE", "POST"}),
    ("verb with other method", "GET", "/v1/shelves/1/books/2:move", {"POST"}),
    ("trailing slash", "GET", "/v1/shelves/", set()),
    ("empty segment", "GET", "/v1//x", set()),
    ("methods of every template that fits", "PUT", "/v1/shelves/special", {"GET", "DELETE", "POST"}),
]


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [row[1:] for row in MISSED], ids=[row[0] for row in MISSED]
)
def test_what_is_not_found_tells_the_methods_that_would_be(
    router: Router[str], method: str, path: str, allowed: set[str]
) -> None:
    assert router.match(method, path) == NoMatch(frozenset(allowed))


def test_two_bindings_of_one_path_and_method_are_refused(router: Router[str]) -> None:
    with pytest.raises(
        RouteConflict, match=r"GET /v1/\{other=shelves/\*\} is taken by /v1/\{name=shelves/\*\}"
    ):
        router.add("GET", parse("/v1/{other=shelves/*}"), "other")


CAPTURED = [
    ("one segment is decoded wholly", "/v1/{a}", "/v1/x%2Fy%20z", "x/y z"),
    ("several keep %2F", "/v1/{a=b/*}", "/v1/b/x%2Fy%20z", "b/x%2Fy z"),
    ("several keep %2f as written", "/v1/{a=b/*}", "/v1/b/x%2fy%2Fz", "b/x%2fy%2Fz"),
    ("rest", "/v1/{a=**}", "/v1/b/c%3Ad", "b/c:d"),
    ("rest, nothing", "/v1/{a=**}", "/v1", ""),
    ("without the verb", "/v1/{a=**}:go", "/v1/b/c:go", "b/c"),
    ("UTF-8", "/v1/{a}", "/v1/%E6%9B%B8", "書"),
    ("percent itself", "/v1/{a=b/*}", "/v1/b/100%25", "b/100%"),
    ("encoded percent is decoded once", "/v1/{a=b/*}", "/v1/b/a%252Fb", "b/a%2Fb"),
    ("plus stays", "/v1/{a}", "/v1/a+b", "a+b"),
]


@pytest.mark.parametrize(
    ("template", "path", "wanted"), [row[1:] for row in CAPTURED], ids=[row[0] for row in CAPTURED]
)
def test_a_variable_takes_its_decoded_text(template: str, path: str, wanted: str) -> None:
    router: Router[Template] = Router()
    parsed = parse(template)
    router.add("GET", parsed, parsed)
    found = router.match("GET", path)
    assert isinstance(found, Match)
    assert capture(parsed.variables[0], found.segments) == wanted


def as_regex(template: Template) -> re.Pattern[str]:
    """The obvious way to match one template; what the trie is held against."""
    text = ""
    for segment in template.segments:
        if segment is Wildcard.REST:
            text += "(/[^/]+)*"
        else:
            text += "/" + ("[^/]+" if segment is Wildcard.ONE else re.escape(str(segment)))
    return re.compile(text)


segments = st.sampled_from(["a", "b", "*", "**"])
paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.lists(segments, min_size=1, max_size=4), min_size=1, max_size=12), paths)
def test_the_trie_finds_a_path_exactly_when_some_template_matches_it(
    written: list[list[str]], path: str
) -> None:
    router: Router[str] = Router()
    templates: dict[str, Template] = {}
    for parts in written:
        if "**" in parts[:-1]:
            continue
        text = "/" + "/".join(parts)
        if text not in templates:
            templates[text] = parse(text)
            router.add("GET", templates[text], text)
    matching = {
        text for text, template in templates.items() if as_regex(template).fullmatch(path.rstrip("/"))
    }
    found = router.match("GET", path)
    if isinstance(found, Match):
        assert found.target in matching
    else:
        assert not matching
