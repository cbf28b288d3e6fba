"""The error vocabulary: one class for each code, nothing missing, nothing twice."""

import grpc
import pytest
from chassis import errors
from chassis.errors import Code, Error

TABLE = [
    (errors.Cancelled, 1, 499),
    (errors.UnknownError, 2, 500),
    (errors.InvalidArgument, 3, 400),
    (errors.DeadlineExceeded, 4, 504),
    (errors.NotFound, 5, 404),
    (errors.AlreadyExists, 6, 409),
    (errors.PermissionDenied, 7, 403),
    (errors.ResourceExhausted, 8, 429),
    (errors.FailedPrecondition, 9, 400),
    (errors.Aborted, 10, 409),
    (errors.OutOfRange, 11, 400),
    (errors.Unimplemented, 12, 501),
    (errors.Internal, 13, 500),
    (errors.Unavailable, 14, 503),
    (errors.DataLoss, 15, 500),
    (errors.Unauthenticated, 16, 401),
]


def all_subclasses(cls: type[Error]) -> list[type[Error]]:
    return [found for sub in cls.__subclasses__() for found in (sub, *all_subclasses(sub))]


@pytest.mark.parametrize(("cls", "number", "http"), TABLE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_each_class_has_its_code_and_http_status(cls: type[Error], number: int, http: int) -> None:
    assert cls.code.value == number
    assert cls.code.http_status == http
    assert errors.error_class(cls.code) is cls
    assert Code.from_number(number) is cls.code


def test_codes_are_grpc_s_own_by_name_and_number() -> None:
    assert {(c.name, c.value) for c in Code} == {(s.name, s.value[0]) for s in grpc.StatusCode}


def test_every_subclass_is_in_the_table_and_can_be_made() -> None:
    found = [cls for cls in all_subclasses(Error) if cls.__module__ == "chassis.errors"]
    assert sorted(found, key=str) == sorted((row[0] for row in TABLE), key=str)
    for cls in found:
        error = cls("what was wrong", reason="WHY")
        assert isinstance(error, Error)
        assert (error.message, error.reason) == ("what was wrong", "WHY")
        assert error.metadata == {}
        assert error.violations == ()
        assert cls.__doc__


def test_every_error_class_in_the_repository_of_the_chassis_fixes_a_code() -> None:
    for cls in all_subclasses(Error):
        assert isinstance(cls.code, Code), cls
        assert cls.code is not Code.OK


def test_ok_is_no_error() -> None:
    with pytest.raises(ValueError, match="OK is not an error"):
        errors.error_class(Code.OK)


@pytest.mark.parametrize("number", [-1, 17, 4711])
def test_a_number_outside_the_table_is_unknown(number: int) -> None:
    assert Code.from_number(number) is Code.UNKNOWN


def test_the_text_of_an_error_names_its_fields() -> None:
    error = errors.InvalidArgument(
        "the request is not valid",
        reason="REQUEST_INVALID",
        violations=[errors.FieldViolation("weight", "must be at most 100")],
    )
    assert str(error) == "the request is not valid; weight: must be at most 100"
    assert repr(error) == "InvalidArgument('the request is not valid', reason='REQUEST_INVALID')"
