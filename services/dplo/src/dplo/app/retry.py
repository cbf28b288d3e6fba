"""Retry policy as data: what a failed action means, and how long to wait."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from chassis import errors
from chassis.errors import Code

_PERMANENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.UNIMPLEMENTED,
        Code.DATA_LOSS,
        Code.OUT_OF_RANGE,
        Code.UNAUTHENTICATED,
    }
)


@dataclass(frozen=True, slots=True)
class TemporaryError:
    """Try again; not before `delay` seconds if it is given."""

    error: errors.Error
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class PermanentError:
    """Trying again will not help until somebody changes something."""

    error: errors.Error


def classify(error: errors.Error) -> TemporaryError | PermanentError:
    """What a failure means."""
    if error.code in _PERMANENT:
        return PermanentError(error)
    return TemporaryError(error, error.retry_after)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter above the floor, in seconds."""

    first: float = 0.2
    largest: float = 30.0
    factor: float = 2.0

    def delay(self, attempt: int, jitter: Callable[[], float] = random.random) -> float:
        """The wait after the n-th failed attempt in a row (from 1)."""
        exponent = min(attempt - 1, 32)
        ceiling = min(self.largest, self.first * self.factor**exponent)
        return ceiling / 2 + ceiling / 2 * jitter()
