"""The one error vocabulary of Penstock: canonical codes and one exception class for each.

Pure: no gRPC and no protobuf, so domain and application code may raise these directly. `chassis.status` turns
them into `google.rpc.Status` and back; the servers map whatever else escapes to `INTERNAL` with a generic
text.

    Error
    ├── Cancelled            1   499   the caller gave up
    ├── UnknownError         2   500   a foreign system answered with something outside this table
    ├── InvalidArgument      3   400   wrong whatever the state of the system is
    ├── DeadlineExceeded     4   504   did not finish, or could not have finished, in time
    ├── NotFound             5   404
    ├── AlreadyExists        6   409
    ├── PermissionDenied     7   403   known caller, not allowed
    ├── ResourceExhausted    8   429   a quota, queue or size limit
    ├── FailedPrecondition   9   400   the state must change first; do not retry
    ├── Aborted             10   409   lost a race (etag, transaction); retry the whole read-modify-write
    ├── OutOfRange          11   400   past the end
    ├── Unimplemented       12   501
    ├── Internal            13   500   our own broken invariant
    ├── Unavailable         14   503   retry the call as it is
    ├── DataLoss            15   500   corruption
    └── Unauthenticated     16   401   no valid credentials
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

_HTTP_STATUS = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Code(enum.Enum):
    """Canonical status codes; `value` is the number on the wire (google/rpc/code.proto)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http_status(self) -> int:
        """The HTTP status of the code, as google.rpc.Code documents it (499 for CANCELLED)."""
        return _HTTP_STATUS[self.value]

    @classmethod
    def from_number(cls, number: int) -> "Code":
        """The code of a wire number; numbers outside the table are UNKNOWN, as gRPC demands."""
        return cls(number) if 0 <= number <= 16 else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in contract names (`route.targets[0].weight`) and what is wrong."""

    field: str
    description: str
    reason: str = ""


class Error(Exception):
    """Base of every error Penstock raises on purpose. The subclass fixes the code.

    `reason` is a constant UPPER_SNAKE_CASE word a program may switch on; `message` is for people and says
    what was wrong, where, and what would be right. `metadata` carries the values in the message for
    programs. `retry_after` is in seconds. `details` is a serialised `google.rpc.Status` from an upstream,
    passed on untouched; it wins over everything built here. `trailing` is trailing metadata that came with
    it.
    """

    code: ClassVar[Code]

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        details: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata) if metadata else _NO_METADATA
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.details = details
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()

    def __str__(self) -> str:
        fields = "".join(
            f"; {v.field}: {v.description}" if v.field else f"; {v.description}" for v in self.violations
        )
        return f"{self.message}{fields}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r})"


class Cancelled(Error):
    """The caller gave up."""

    code = Code.CANCELLED


class UnknownError(Error):
    """A foreign system failed in a way that has no code."""

    code = Code.UNKNOWN


class InvalidArgument(Error):
    """The request is wrong whatever the state of the system is."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(Error):
    """The work did not finish, or could not have finished, before its deadline."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(Error):
    """The named thing does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(Error):
    """The thing to create exists."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(Error):
    """The caller is known and is not allowed to do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(Error):
    """A quota, a queue or a size limit is used up."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(Error):
    """The system is not in the state the call needs; retrying does not help until that changes."""

    code = Code.FAILED_PRECONDITION


class Aborted(Error):
    """A race was lost (etag, transaction); the whole read-modify-write may be tried again."""

    code = Code.ABORTED


class OutOfRange(Error):
    """The call reaches past the valid range."""

    code = Code.OUT_OF_RANGE


class Unimplemented(Error):
    """The method or option exists in the contract and not in this version."""

    code = Code.UNIMPLEMENTED


class Internal(Error):
    """One of our own invariants is broken."""

    code = Code.INTERNAL


class Unavailable(Error):
    """The service cannot be reached or is not ready; the call may be retried as it is."""

    code = Code.UNAVAILABLE


class DataLoss(Error):
    """Data is corrupt or lost for good."""

    code = Code.DATA_LOSS


class Unauthenticated(Error):
    """The call carries no valid credentials."""

    code = Code.UNAUTHENTICATED


_CLASSES: Mapping[Code, type[Error]] = MappingProxyType(
    {
        cls.code: cls
        for cls in (
            Cancelled,
            UnknownError,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        )
    }
)


def error_class(code: Code) -> type[Error]:
    """The exception class of a code. `Code.OK` is no error and raises ValueError."""
    try:
        return _CLASSES[code]
    except KeyError:
        raise ValueError(f"{code.name} is not an error code") from None
