"""What can go wrong in a call, as one tree of exceptions.

```
PenstockError
├── Cancelled            ├── FailedPrecondition ── RolloutFailed
├── UnknownError         ├── Aborted
├── InvalidArgument      ├── OutOfRange
├── DeadlineExceeded     ├── Unimplemented
├── NotFound             ├── Internal
├── AlreadyExists        ├── Unavailable
├── PermissionDenied     ├── DataLoss ── DigestMismatch
├── ResourceExhausted    └── Unauthenticated
```

Every class stands for one canonical code (https://google.aip.dev/193); a server's `ErrorInfo`, `BadRequest`
and `RetryInfo` details become `reason`, `metadata`, `violations` and `retry_after`. Errors that the client
finds by itself (a file that is not there, a digest that does not match) use the same classes, so that a
caller handles one tree.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class Code(enum.IntEnum):
    """The canonical status codes, with their numbers on the wire."""

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


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that was refused."""

    field: str
    """Path of the field, for example `deployment.versions[0].replicas`."""
    description: str
    """What is wrong with it and what would be right."""
    reason: str = ""
    """The rule that was broken, as an UPPER_SNAKE word, where the server names it."""


class PenstockError(Exception):
    """Base of everything that this client raises on purpose."""

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        origin: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.code.name
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.retry_after = retry_after
        """Seconds after which the server says another attempt makes sense."""
        self.origin = origin
        """Which server answered and where, for example `AIGW at 127.0.0.1:8500`; empty for the client's
        own errors.
        """

    def __str__(self) -> str:
        told = [v for v in self.violations if v.field and v.description not in self.message]
        return "; ".join([self.message, *(f"{v.field}: {v.description}" for v in told)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r})"


class Cancelled(PenstockError):
    """The caller gave up."""

    code = Code.CANCELLED


class UnknownError(PenstockError):
    """A server failed without saying how."""

    code = Code.UNKNOWN


class InvalidArgument(PenstockError):
    """What was asked for can never work; `violations` says which fields."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(PenstockError):
    """The time allowed ran out."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(PenstockError):
    """The named thing does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(PenstockError):
    """The name is taken by something else."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(PenstockError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(PenstockError):
    """A limit is reached; `retry_after` may say when to come back."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(PenstockError):
    """The system is not in a state for this; something else has to change first."""

    code = Code.FAILED_PRECONDITION


class RolloutFailed(FailedPrecondition):
    """A deployment that was waited for did not get where it was told to go."""


class Aborted(PenstockError):
    """Somebody else changed it at the same time; read again and retry."""

    code = Code.ABORTED


class OutOfRange(PenstockError):
    """Past the end of what there is."""

    code = Code.OUT_OF_RANGE


class Unimplemented(PenstockError):
    """The server does not know how to do this."""

    code = Code.UNIMPLEMENTED


class Internal(PenstockError):
    """The server broke; its log has the details."""

    code = Code.INTERNAL


class Unavailable(PenstockError):
    """The server could not be reached or cannot take calls now."""

    code = Code.UNAVAILABLE


class DataLoss(PenstockError):
    """Bytes are missing or damaged."""

    code = Code.DATA_LOSS


class DigestMismatch(DataLoss):
    """What arrived is not what was announced."""


class Unauthenticated(PenstockError):
    """Who is calling is not known: no token, or one that is not accepted."""

    code = Code.UNAUTHENTICATED


_CLASSES: Mapping[Code, type[PenstockError]] = {
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


def error_class(code: int) -> type[PenstockError]:
    """The exception class of a canonical code; `UnknownError` for a number that is none."""
    try:
        return _CLASSES.get(Code(code), UnknownError)
    except ValueError:
        return UnknownError
