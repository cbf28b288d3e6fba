"""The path template grammar: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import pytest
from chassis.rest.template import Template, TemplateError, Variable, Wildcard, parse
from hypothesis import given
from hypothesis import strategies as st

ONE, REST = Wildcard.ONE, Wildcard.REST

GOOD = [
    ("root", "/", (), "", ()),
    ("literal", "/v1/shelves", ("v1", "shelves"), "", ()),
    ("verb", "/v1/books:search", ("v1", "books"), "search", ()),
    ("verb on the root", "/:search", (), "search", ()),
    ("bare wildcards", "/v1/*/x/**", ("v1", ONE, "x", REST), "", ()),
    ("short variable", "/v1/{name}", ("v1", ONE), "", (Variable(("name",), 1, 2, False),)),
    ("explicit one", "/v1/{name=*}", ("v1", ONE), "", (Variable(("name",), 1, 2, False),)),
    ("nested field", "/v1/{a.b.c}", ("v1", ONE), "", (Variable(("a", "b", "c"), 1, 2, False),)),
    (
        "several segments",
        "/v1/{name=shelves/*/books/*}",
        ("v1", "shelves", ONE, "books", ONE),
        "",
        (Variable(("name",), 1, 5, True),),
    ),
    ("rest", "/v1/{name=a/**}", ("v1", "a", REST), "", (Variable(("name",), 1, None, True),)),
    ("rest alone", "/{path=**}:get", (REST,), "get", (Variable(("path",), 0, None, True),)),
    (
        "two variables",
        "/{a}/x/{b=y/*}:z",
        (ONE, "x", "y", ONE),
        "z",
        (Variable(("a",), 0, 1, False), Variable(("b",), 2, 4, True)),
    ),
    ("literal as a variable", "/{name=shelves}", ("shelves",), "", (Variable(("name",), 0, 1, True),)),
    ("percent in a literal", "/a%20b/c", ("a b", "c"), "", ()),
    ("dots and dashes", "/v1.0/a-b_c~d", ("v1.0", "a-b_c~d"), "", ()),
]


@pytest.mark.parametrize(
    ("text", "segments", "verb", "variables"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD]
)
def test_a_template_parses(
    text: str, segments: tuple[object, ...], verb: str, variables: tuple[Variable, ...]
) -> None:
    assert parse(text) == Template(text, segments, verb, variables)  # type: ignore[arg-type]


BAD = [
    ("empty", "", "expected '/' at the end"),
    ("no slash", "v1", "expected '/' at column 1"),
    ("empty segment", "/v1//x", "expected a segment"),
    ("trailing slash", "/v1/", "expected a segment"),
    ("open variable", "/v1/{name", "expected '}' at the end"),
    ("open variable with segments", "/v1/{name=a/*", "expected '}' at the end"),
    ("closed only", "/v1/name}", "unexpected '}' at column 9"),
    ("no field", "/v1/{}", "expected a field name at column 6"),
    ("number as a field", "/v1/{1a}", "expected a field name"),
    ("empty field part", "/v1/{a..b}", "expected a field name"),
    ("nothing after equals", "/v1/{a=}", "expected a segment"),
    ("nested variable", "/v1/{a={b}}", "must not hold another variable at column 8"),
    ("rest not last", "/v1/**/x", "'**' must be the last segment"),
    ("rest not last in a variable", "/{a=**}/x", "'**' must be the last segment"),
    ("two rests", "/**/**", "'**' must be the last segment"),
    ("empty verb", "/v1/x:", "expected a verb at the end"),
    ("verb in the middle", "/v1:x/y", "unexpected '/' at column 6"),
    ("star in a literal", "/v1/a*b", "unexpected '*' at column 6"),
    ("three stars", "/***", "unexpected '*' at column 4"),
    ("broken percent", "/v1/a%2", "unexpected '%'"),
    ("question mark", "/v1?x", "unexpected '?'"),
    ("blank", "/v1/a b", "unexpected ' '"),
    ("a variable twice", "/{a}/{a}", "variable 'a' is bound twice"),
]


@pytest.mark.parametrize(("text", "problem"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_wrong_template_says_what_and_where(text: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert problem in str(caught.value)
    assert repr(text) in str(caught.value)


literals = st.text("abcXYZ019-._~", min_size=1, max_size=6)
plain = st.one_of(literals, st.just(ONE))
names = st.from_regex(r"[a-z_][a-z0-9_]{0,5}(\.[a-z_][a-z0-9_]{0,5}){0,2}", fullmatch=True)


@st.composite
def written_templates(draw: st.DrawFn) -> tuple[str, tuple[object, ...], str, list[tuple[str, int, int]]]:
    """A template's text, with what it must parse to."""
    segments: list[object] = []
    texts: list[str] = []
    variables: list[tuple[str, int, int]] = []
    for name in [
        None,
        *draw(st.lists(st.one_of(st.none(), names), max_size=4, unique_by=lambda n: n or object())),
    ]:
        inner = draw(st.lists(plain, min_size=1, max_size=3))
        text = "/".join(s if isinstance(s, str) else "*" for s in inner)
        if name is None:
            texts.append(text)
        else:
            variables.append((name, len(segments), len(segments) + len(inner)))
            texts.append("{" + name + ("" if inner == [ONE] and draw(st.booleans()) else "=" + text) + "}")
        segments += inner
    if draw(st.booleans()):
        segments.append(REST)
        texts.append("**")
    verb = draw(st.one_of(st.just(""), literals))
    return "/" + "/".join(texts) + (f":{verb}" if verb else ""), tuple(segments), verb, variables


@given(written_templates())
def test_what_is_written_by_the_grammar_parses_to_what_was_meant(
    written: tuple[str, tuple[object, ...], str, list[tuple[str, int, int]]],
) -> None:
    text, segments, verb, variables = written
    template = parse(text)
    assert (template.segments, template.verb) == (segments, verb)
    assert [(".".join(v.field_path), v.start, v.end) for v in template.variables] == variables


@given(st.text("/{}=*:.%2Faxy", max_size=24))
def test_any_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        template = parse(text)
    except TemplateError:
        return
    assert all(v.end is None or 0 <= v.start < v.end <= len(template.segments) for v in template.variables)
