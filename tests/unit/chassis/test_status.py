"""Errors to google.rpc.Status and back."""

import pytest
from chassis import errors, status
from chassis.errors import Code, FieldViolation
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

CODES = [code for code in Code if code is not Code.OK]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("code", CODES, ids=lambda c: c.name)
def test_an_error_survives_the_wire(code: Code) -> None:
    error = errors.error_class(code)(
        "model 'a' has no version 'b'",
        reason="VERSION_UNKNOWN",
        metadata={"model": "a", "version": "b"},
        violations=[FieldViolation("model_version", "unknown", "UNKNOWN")],
        retry_after=1.5,
    )
    back = status.from_status(status.to_status(error))
    assert type(back) is type(error)
    assert (back.message, back.reason, dict(back.metadata)) == (error.message, error.reason, error.metadata)
    assert back.violations == error.violations
    assert back.retry_after == 1.5


@given(
    code=st.sampled_from(CODES),
    message=text,
    reason=text.filter(bool),
    metadata=st.dictionaries(text, text, max_size=3),
    violations=st.lists(st.builds(FieldViolation, text, text, text), max_size=3),
    retry_after=st.none() | st.integers(0, 10**6).map(float),
)
def test_any_error_survives_the_wire(
    code: Code,
    message: str,
    reason: str,
    metadata: dict[str, str],
    violations: list[FieldViolation],
    retry_after: float | None,
) -> None:
    error = errors.error_class(code)(
        message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after
    )
    back = status.from_status(status.to_status(error))
    assert (type(back), back.message, back.reason) == (type(error), message, reason)
    assert (dict(back.metadata), back.violations, back.retry_after) == (
        metadata,
        tuple(violations),
        retry_after,
    )


def test_error_info_carries_our_domain() -> None:
    detail = status.to_status(errors.NotFound("no", reason="MODEL_UNKNOWN")).details[0]
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.domain, info.reason) == ("penstock.dev", "MODEL_UNKNOWN")


def test_an_upstream_s_status_bytes_pass_untouched() -> None:
    theirs = status_pb2.Status(code=5, message="theirs")
    theirs.details.add(type_url="type.googleapis.com/not.ours.Detail", value=b"\x01\x02")
    error = status.from_wire(Code.NOT_FOUND, "theirs", theirs.SerializeToString())
    assert error.details == theirs.SerializeToString()
    assert status.wire_details(error) == theirs.SerializeToString()
    assert status.to_status(error) == theirs


@pytest.mark.parametrize(
    "details",
    [None, b"\xff\xff not a status", status_pb2.Status(code=3, message="another code").SerializeToString()],
    ids=["none", "garbage", "contradicting"],
)
def test_status_bytes_that_make_no_sense_are_ignored(details: bytes | None) -> None:
    error = status.from_wire(Code.UNAVAILABLE, "gone", details)
    assert isinstance(error, errors.Unavailable)
    assert (error.message, error.reason, error.details) == ("gone", "UNAVAILABLE", None)


def test_details_that_are_not_a_status_do_not_break_the_answer() -> None:
    error = errors.NotFound("no", reason="X", details=b"\xff\xff")
    assert status.to_status(error).code == 5


def test_a_failure_with_code_ok_is_internal() -> None:
    assert isinstance(status.from_status(status_pb2.Status(code=0)), errors.Internal)
    assert isinstance(status.from_wire(Code.OK, "", None), errors.Internal)


def test_a_status_too_large_for_trailers_is_trimmed_and_says_so() -> None:
    violations = [FieldViolation(f"inputs[{n}]", "x" * 300, "R") for n in range(100)]
    error = errors.InvalidArgument("m" * 5000, reason="REQUEST_INVALID", violations=violations)
    sent = status.wire_details(error)
    assert len(sent) <= status.MAX_DETAILS_BYTES
    assert len(status.wire_message(error).encode()) < 2000
    back = status.from_status(status_pb2.Status.FromString(sent))
    assert back.violations[0] == violations[0]
    kept = len(back.violations) - 1
    assert back.violations[-1].description == f"and {100 - kept} more violations"


def test_unknown_exceptions_tell_nothing() -> None:
    error = status.unknown(KeyError("/etc/secret"))
    assert isinstance(error, errors.Internal)
    assert "secret" not in str(status.to_status(error))


@pytest.mark.parametrize(("number", "name"), [(0, "OK"), (16, "UNAUTHENTICATED"), (99, "UNKNOWN")])
def test_code_names(number: int, name: str) -> None:
    assert status.code_name(number) == name
