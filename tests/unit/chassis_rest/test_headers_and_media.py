"""The rules between headers and metadata, and the choice of media types."""

from __future__ import annotations

import pytest
from chassis import errors
from chassis.rest import headers, media
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

INBOUND = [
    ("authorization", "Authorization", "Bearer x", ("authorization", "Bearer x")),
    ("api key", "X-Api-Key", "k", ("x-api-key", "k")),
    ("trace parent", "traceparent", "00-a-b-01", ("traceparent", "00-a-b-01")),
    ("trace state", "TraceState", "a=b", ("tracestate", "a=b")),
    ("baggage", "baggage", "a=b", ("baggage", "a=b")),
    ("request id", "X-Request-Id", "7", ("x-request-id", "7")),
    ("prefixed", "Grpc-Metadata-Foo", " v ", ("foo", "v")),
    ("binary", "grpc-metadata-foo-bin", "AP8=", ("foo-bin", b"\x00\xff")),
    ("binary, unpadded and url-safe", "grpc-metadata-foo-bin", "-_8", ("foo-bin", b"\xfb\xff")),
    ("cookie", "Cookie", "secret", None),
    ("timeout is no metadata", "Grpc-Timeout", "1S", None),
    ("foreign grpc header", "Grpc-Encoding", "gzip", None),
    ("content type", "Content-Type", "application/json", None),
]


@pytest.mark.parametrize(
    ("name", "value", "wanted"), [row[1:] for row in INBOUND], ids=[row[0] for row in INBOUND]
)
def test_a_header_becomes_metadata_or_stays_outside(name: str, value: str, wanted: object) -> None:
    found = headers.to_metadata([(name.encode(), value.encode())])
    assert found == (() if wanted is None else (wanted,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-metadata-grpc-timeout", b"1S"),
        ("grpc-metadata-content-type", b"x"),
        ("grpc-metadata-", b"x"),
        ("grpc-metadata-a b", b"x"),
        ("grpc-metadata-foo-bin", b"not base64!"),
        ("authorization", "schön".encode()),
        ("grpc-metadata-foo", b"a\x01b"),
    ],
    ids=[
        "reserved prefix",
        "reserved name",
        "no name",
        "bad name",
        "bad base64",
        "not ASCII",
        "control character",
    ],
)
def test_a_header_that_metadata_cannot_carry_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        headers.to_metadata([(name.encode(), value)])
    assert caught.value.reason == "INVALID_HEADER"
    assert caught.value.metadata["header"] == name


def test_further_headers_pass_when_they_are_named() -> None:
    assert headers.to_metadata([(b"X-Tenant", b"a")], frozenset(["x-tenant"])) == (("x-tenant", "a"),)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("30S", 30),
        ("500m", 0.5),
        ("250u", 0.00025),
        ("1n", 1e-9),
        ("0S", 0),
        (None, None),
    ],
)
def test_a_timeout_is_read(value: str | None, seconds: float | None) -> None:
    assert (
        headers.timeout(value) == pytest.approx(seconds)
        if seconds is not None
        else headers.timeout(value) is None
    )


@pytest.mark.parametrize("value", ["", "5", "S", "-1S", "1.5S", "123456789S", "1s", "1 S", "٣S"])
def test_a_bad_timeout_is_refused(value: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="grpc-timeout"):
        headers.timeout(value)


def test_metadata_comes_back_under_its_prefixes() -> None:
    found = headers.from_metadata(
        [("colour", "green"), ("pic-bin", b"\x00\xff"), ("x-request-id", "7"), ("grpc-internal", "x")],
        [("weight", "12"), ("content-type", "x"), ("grpc-status-details-bin", b"x"), ("bad", "schön")],
    )
    assert list(found) == [
        (b"grpc-metadata-colour", b"green"),
        (b"grpc-metadata-pic-bin", b"AP8="),
        (b"x-request-id", b"7"),
        (b"grpc-trailer-weight", b"12"),
    ]


def test_a_failure_implies_headers() -> None:
    delay = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=1))
    packed = any_pb2.Any()
    packed.Pack(delay)
    assert list(headers.of_failure(status_pb2.Status(code=14, details=[packed]))) == [(b"retry-after", b"3")]
    assert list(headers.of_failure(status_pb2.Status(code=16))) == [(b"www-authenticate", b"Bearer")]


ACCEPTED = [
    ("nothing said", None, "application/x-ndjson"),
    ("anything", "*/*", "application/x-ndjson"),
    ("events", "text/event-stream", "text/event-stream"),
    ("events with a rest", "text/event-stream, */*;q=0.1", "text/event-stream"),
    ("weights", "application/json;q=0.5, text/event-stream;q=0.9", "text/event-stream"),
    ("a family", "text/*", "text/event-stream"),
    ("not this one", "application/x-ndjson;q=0, application/*", "application/ndjson"),
    ("json", "application/json", "application/json"),
    ("capitals and blanks", " Text/Event-Stream ; charset=utf-8", "text/event-stream"),
    ("bad weight counts as one", "text/event-stream;q=x", "text/event-stream"),
    ("none", "text/html", None),
    ("all refused", "*/*;q=0", None),
]


@pytest.mark.parametrize(
    ("accept", "wanted"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_the_form_that_the_client_prefers_is_chosen(accept: str | None, wanted: str | None) -> None:
    assert media.choose(accept, media.ANSWERS_STREAM) == wanted


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        ("application/json", True),
        ("APPLICATION/JSON; charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/merge-patch+json", True),
        ("application/json; charset=latin-1", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("application/x-www-form-urlencoded", False),
    ],
)
def test_json_is_told_by_its_media_type(content_type: str, json: bool) -> None:
    assert media.is_json(content_type) is json
