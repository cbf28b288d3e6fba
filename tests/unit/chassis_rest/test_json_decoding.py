"""JSON into messages: every refusal names its field, and what is valid means what json_format says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from chassis import errors
from chassis.rest import jsontext
from chassis.rest.decode import Decoder
from chassis.rest.descriptors import load_pool
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def decode(bookstore_contract: Any) -> Any:
    """Decodes a JSON value into Everything."""
    decoder = Decoder(load_pool(bookstore_contract.descriptors))

    def run(value: Any, decoder: Decoder = decoder) -> Any:
        message = bookstore_contract.pb.Everything()
        decoder.message(value, message)
        return message

    return run


WRONG = [
    ("text for a number", {"aDouble": "x"}, "a_double", 'expected a number, got "x"'),
    ("text for an integer", {"anInt32": "many"}, "an_int32", "expected a 32-bit integer"),
    ("too large", {"anInt32": 2**31}, "an_int32", "-2147483648 to 2147483647"),
    ("too small for unsigned", {"aUint64": -1}, "a_uint64", "0 to 18446744073709551615"),
    ("fraction", {"anInt64": 1.5}, "an_int64", "expected a 64-bit integer, got 1.5"),
    ("bool for an integer", {"anInt32": True}, "an_int32", "expected a 32-bit integer, got true"),
    ("integer with a blank", {"anInt32": " 1"}, "an_int32", "expected a 32-bit integer"),
    ("integer with an underscore", {"anInt32": "1_0"}, "an_int32", "expected a 32-bit integer"),
    ("infinite number", {"aFloat": 1e39}, "a_float", "beyond the range of a float"),
    ("huge double", {"aDouble": "1e999"}, "a_double", "beyond the range of a double"),
    ("number for text", {"text": 5}, "text", "expected a string, got 5"),
    ("surrogate", {"text": "\ud800"}, "text", "unpaired surrogate"),
    ("text for a bool", {"aBool": "true"}, "a_bool", "expected true or false"),
    ("bad base64", {"someBytes": "a*b"}, "some_bytes", "expected base64"),
    ("impossible base64 length", {"someBytes": "A"}, "some_bytes", "expected base64"),
    ("unknown enum", {"kind": "COMIC"}, "kind", "one of KIND_UNSPECIFIED, NOVEL, POETRY"),
    ("enum out of range", {"kind": 2**40}, "kind", "or its number"),
    ("list for a message", {"nested": []}, "nested", "expected an object (Nest), got []"),
    ("text for a message", {"nested": ""}, "nested", "expected an object (Nest)"),
    ("deep unknown field", {"nested": {"nest": {"x": 1}}}, "nested.nest.x", "Nest has no such field"),
    ("object for a list", {"texts": {}}, "texts", "expected a list"),
    ("element", {"nests": [{}, {"leaf": 5}]}, "nests[1].leaf", "expected a string"),
    ("null element", {"texts": ["a", None]}, "texts[1]", "null cannot be an element"),
    ("list for a map", {"labels": []}, "labels", "expected an object (map)"),
    ("map key", {"byNumber": {"x": {}}}, 'by_number["x"]', "expected a 64-bit integer"),
    ("map bool key", {"byFlag": {"yes": 1}}, 'by_flag["yes"]', "expected true or false"),
    ("map value", {"labels": {"a": 5}}, 'labels["a"]', "expected a string"),
    ("null map value", {"labels": {"a": None}}, 'labels["a"]', "null cannot be the value"),
    ("time", {"time": "noon"}, "time", "expected an RFC 3339 time"),
    ("time as a number", {"time": 5}, "time", "expected an RFC 3339 time"),
    ("span", {"span": "5"}, "span", 'expected seconds with an "s"'),
    ("mask", {"mask": ["a"]}, "mask", "expected field paths"),
    ("struct", {"object": []}, "object", "expected an object (Struct)"),
    ("any without a type", {"any": {"a": 1}}, "any", "@type"),
    ("any that is text", {"any": "x"}, "any", "expected an object (Any)"),
    ("wrapper", {"wrappedInt64": "x"}, "wrapped_int64", "expected a 64-bit integer"),
    ("both of a oneof", {"left": "x", "right": {}}, "right", "'left' and 'right' exclude each other"),
    ("both names", {"aBool": True, "a_bool": False}, "a_bool", "given twice, as 'aBool' and as 'a_bool'"),
    ("a list", [], "", "expected an object (Everything), got []"),
    ("nothing", None, "", "expected an object (Everything), got null"),
]


@pytest.mark.parametrize(
    ("value", "field", "text"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_wrong_value_is_refused_with_its_field(decode: Any, value: Any, field: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        decode(value)
    assert [v.field for v in caught.value.violations] == [field]
    assert text in caught.value.violations[0].description


def test_every_wrong_field_is_named_at_once(decode: Any) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        decode({"colour": 1, "aBool": 2, "nests": [{"leaf": 3}]})
    assert [v.field for v in caught.value.violations] == ["colour", "a_bool", "nests[0].leaf"]
    assert "field 'colour'" in str(caught.value)
    assert "(and 2 more)" in str(caught.value)


def test_no_more_than_twenty_wrong_fields_are_named(decode: Any) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        decode({"texts": [1] * 1000})
    assert len(caught.value.violations) == 20


def test_what_is_nested_too_deeply_is_refused(decode: Any) -> None:
    value: dict[str, Any] = {}
    for _ in range(150):
        value = {"nest": value}
    with pytest.raises(errors.InvalidArgument, match="nested deeper than 100 levels"):
        decode({"nested": value})


def test_unknown_fields_are_skipped_when_asked(bookstore_contract: Any, decode: Any) -> None:
    lenient = Decoder(load_pool(bookstore_contract.descriptors), ignore_unknown_fields=True)
    assert decode({"colour": 1, "nested": {"x": 1, "leaf": "y"}}, lenient).nested.leaf == "y"


def test_null_leaves_a_field_unset_and_sets_a_value(decode: Any) -> None:
    message = decode(
        {"text": None, "nested": None, "texts": None, "maybe": None, "wrappedString": None, "value": None}
    )
    assert [field.name for field, _ in message.ListFields()] == ["value"]
    assert message.value.WhichOneof("kind") == "null_value"


def test_a_wrapper_of_a_default_is_present(decode: Any) -> None:
    message = decode({"wrappedInt64": 0, "maybe": 0, "empty": {}})
    assert message.HasField("wrapped_int64")
    assert message.HasField("maybe")
    assert message.HasField("empty")


MALFORMED = [
    ("open", b'{"a": 1', "line 1, column 8"),
    ("second line", b'{"a": 1,\n  b: 2}', "line 2, column 3"),
    ("trailing text", b"{} x", "line 1, column 4"),
    ("not UTF-8", b'{"a":\n"\xff"}', "not UTF-8 at line 2, column 2"),
    ("twice", b'{"a": {"b": 1, "b": 2}}', "member 'b' is given twice"),
    ("NaN", b'{"a": NaN}', "NaN is not JSON"),
    ("Infinity", b"[-Infinity]", "-Infinity is not JSON"),
    ("deep", b"[" * 100_000, "nested too deeply"),
    ("long number", b"1" * 10_000, "a number is too long"),
    ("control character", b'"a\nb"', "line 1, column 3"),
]


@pytest.mark.parametrize(("text", "place"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_malformed_json_is_told_by_its_place(text: bytes, place: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        jsontext.loads(text)
    assert caught.value.reason == "MALFORMED_JSON"
    assert place in str(caught.value)


integers32 = st.integers(-(2**31), 2**31 - 1)
integers64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
nests: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries({}, optional={"leaf": texts}),
    lambda inner: st.fixed_dictionaries({"nest": inner}, optional={"leaf": texts}),
    max_leaves=3,
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
times = st.datetimes().map(lambda t: t.isoformat() + "Z")
spans = st.integers(-315_576_000_000, 315_576_000_000).map(lambda s: f"{s}s")
kinds = st.sampled_from(["KIND_UNSPECIFIED", "NOVEL", "POETRY", 0, 1, 2, 7, "2"])
base64s = st.binary(max_size=8).map(lambda b: base64.b64encode(b).decode())
everythings = st.fixed_dictionaries(
    {},
    optional={
        "aDouble": st.floats().map(
            lambda f: f if abs(f) < float("inf") else "NaN" if f != f else f"{'-' if f < 0 else ''}Infinity"
        ),
        "a_float": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "anInt32": integers32 | integers32.map(str),
        "anInt64": integers64 | integers64.map(str),
        "aUint32": st.integers(0, 2**32 - 1),
        "a_uint64": st.integers(0, 2**64 - 1).map(str),
        "aBool": st.booleans(),
        "text": texts,
        "someBytes": base64s,
        "kind": kinds,
        "nested": nests,
        "texts": st.lists(texts, max_size=3),
        "nests": st.lists(nests, max_size=2),
        "kinds": st.lists(kinds, max_size=3),
        "labels": st.dictionaries(texts, texts, max_size=3),
        "byNumber": st.dictionaries(integers64.map(str), nests, max_size=2),
        "byFlag": st.dictionaries(st.sampled_from(["true", "false"]), kinds, max_size=2),
        "time": times,
        "span": spans,
        "object": st.dictionaries(texts, json_values, max_size=3),
        "value": json_values,
        "list": st.lists(json_values, max_size=3),
        "wrappedString": texts | st.none(),
        "wrappedInt64": integers64,
        "wrappedBytes": base64s,
        "maybe": integers32 | st.none(),
        "left": texts,
        "numbers": st.lists(integers32, max_size=4),
        "any": nests.map(lambda n: n | {"@type": "type.googleapis.com/example.bookstore.v1.Nest"}),
    },
)


@given(value=everythings)
def test_valid_json_means_what_json_format_says(
    bookstore_contract: Any, decode: Any, value: dict[str, Any]
) -> None:
    expected = bookstore_contract.pb.Everything()
    json_format.ParseDict(json.loads(json.dumps(value)), expected)
    assert decode(value).SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


@given(
    value=st.dictionaries(
        st.sampled_from(
            ["aDouble", "text", "nested", "texts", "labels", "kind", "time", "any", "value", "mask", "byFlag"]
        ),
        json_values,
        max_size=3,
    )
)
def test_any_json_at_all_is_decoded_or_refused_with_fields(decode: Any, value: dict[str, Any]) -> None:
    try:
        decode(value)
    except errors.InvalidArgument as error:
        named = {v.field.split(".")[0].split("[")[0] for v in error.violations}
        assert named
