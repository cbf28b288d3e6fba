"""From what a server sent to the client's errors, and from those to exit codes."""

import json

import grpc
import pytest
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from penstock_client import errors, status
from penstock_client.cli import failures
from penstock_client.retry import NO_RETRIES, RetryPolicy


def detailed(code: int) -> status_pb2.Status:
    found = status_pb2.Status(code=code, message="weight is negative")
    for detail in (
        error_details_pb2.ErrorInfo(
            reason="WEIGHT_INVALID", domain="penstock.dev", metadata={"route": "d/c"}
        ),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field="targets[0].weight", description="must be >= 0"
                )
            ]
        ),
        error_details_pb2.RetryInfo(),
    ):
        if isinstance(detail, error_details_pb2.RetryInfo):
            detail.retry_delay.FromMilliseconds(1500)
        packed = any_pb2.Any()
        packed.Pack(detail)
        found.details.append(packed)
    return found


def rpc_error(code: grpc.StatusCode, details: str, trailing: Metadata | None = None) -> AioRpcError:
    return AioRpcError(code, Metadata(), trailing or Metadata(), details=details)


@pytest.mark.parametrize("code", [code for code in errors.Code if code], ids=lambda code: code.name)
def test_every_code_has_its_exception_and_its_exit_code(code: errors.Code) -> None:
    error = errors.error_class(code)("what happened")

    assert error.code is code
    assert error.reason == code.name
    assert failures.exit_code(error) in failures.EXIT_CODES
    assert failures.exit_code(error) != 0


def test_a_number_that_is_no_code_is_an_unknown_error() -> None:
    assert errors.error_class(99) is errors.UnknownError


def test_details_of_a_grpc_status_become_reason_violations_and_retry_time() -> None:
    trailing = Metadata(("grpc-status-details-bin", detailed(3).SerializeToString()))

    error = status.from_rpc_error(
        rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "weight is negative", trailing), origin="AIGW at x"
    )

    assert isinstance(error, errors.InvalidArgument)
    assert error.reason == "WEIGHT_INVALID"
    assert error.metadata == {"route": "d/c"}
    assert error.violations == (errors.FieldViolation("targets[0].weight", "must be >= 0"),)
    assert error.retry_after == 1.5
    assert error.origin == "AIGW at x"
    assert str(error) == "weight is negative; targets[0].weight: must be >= 0"


def test_a_rest_body_gives_the_same_error() -> None:
    body = json_format.MessageToJson(detailed(3)).encode()

    error = status.from_http(400, body, origin="AIGW at x")

    assert isinstance(error, errors.InvalidArgument)
    assert (error.reason, error.retry_after) == ("WEIGHT_INVALID", 1.5)


@pytest.mark.parametrize(
    ("http", "body", "kind", "message"),
    [
        (502, b"<html>Bad Gateway</html>", errors.Unavailable, "Bad Gateway"),
        (404, json.dumps({"error": "unknown model 'x'"}).encode(), errors.NotFound, "unknown model 'x'"),
        (
            404,
            b'{"error": "x", "status": {"code": 14, "message": "no replica"}}',
            errors.Unavailable,
            "no replica",
        ),
        (418, b"", errors.InvalidArgument, "HTTP 418"),
        (599, b"", errors.UnknownError, "HTTP 599"),
    ],
    ids=["a proxy's page", "Triton's form", "ours", "other 4xx", "other 5xx"],
)
def test_bodies_that_are_not_ours_are_told_apart_by_the_http_status(
    http: int, body: bytes, kind: type[errors.PenstockError], message: str
) -> None:
    error = status.from_http(http, body, origin="x")

    assert type(error) is kind
    assert message in error.message


def test_a_refused_connection_says_what_could_not_be_reached() -> None:
    error = status.from_rpc_error(
        rpc_error(
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        ),
        origin="DPLO at 127.0.0.1:1",
    )

    assert error.message == "cannot reach DPLO at 127.0.0.1:1: Connection refused"
    assert error.reason == "SERVER_UNREACHABLE"


def test_status_details_of_another_code_than_the_call_are_not_believed() -> None:
    trailing = Metadata(("grpc-status-details-bin", detailed(5).SerializeToString()))

    error = status.from_rpc_error(rpc_error(grpc.StatusCode.INTERNAL, "broken", trailing), origin="x")

    assert type(error) is errors.Internal


POLICY = RetryPolicy(attempts=4, initial_delay=0.1, multiplier=2, max_delay=0.3)


@pytest.mark.parametrize(
    ("error", "attempt", "delay"),
    [
        (errors.Unavailable(""), 1, 0.1),
        (errors.Unavailable(""), 2, 0.2),
        (errors.Unavailable(""), 3, 0.3),
        (errors.Unavailable(""), 4, None),
        (errors.Unavailable("", retry_after=5.0), 1, 5.0),
        (errors.ResourceExhausted("", retry_after=2.0), 1, 2.0),
        (errors.ResourceExhausted(""), 1, None),
        (errors.InvalidArgument(""), 1, None),
        (errors.Internal(""), 1, None),
        (errors.DeadlineExceeded(""), 1, None),
    ],
    ids=[
        "first",
        "grows",
        "capped",
        "enough",
        "server asks for more",
        "limit with time",
        "limit without",
        "input",
        "server",
        "deadline",
    ],
)
def test_only_what_may_help_is_tried_again(
    error: errors.PenstockError, attempt: int, delay: float | None
) -> None:
    assert POLICY.delay(error, attempt, jitter=1.0) == delay


def test_without_retries_nothing_is_tried_again() -> None:
    assert NO_RETRIES.delay(errors.Unavailable(""), 1, jitter=0.5) is None
