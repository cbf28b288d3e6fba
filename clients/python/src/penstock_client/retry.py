"""When a failed call is worth another attempt, as data and one pure function."""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstock_client.errors import Code, PenstockError


@dataclass(frozen=True)
class RetryPolicy:
    """How calls that change nothing are repeated; calls that change something are never repeated."""

    attempts: int = 4
    """Attempts in all, the first one included; 1 switches retries off."""
    initial_delay: float = 0.1
    """Seconds before the second attempt."""
    multiplier: float = 2.0
    """Growth of the delay from attempt to attempt."""
    max_delay: float = 2.0
    """Seconds that a delay never exceeds, unless the server itself asks for more."""
    codes: frozenset[Code] = frozenset({Code.UNAVAILABLE})
    """Codes that say nothing was done. A RESOURCE_EXHAUSTED with a `retry_after` is retried too."""

    def delay(self, error: PenstockError, attempt: int, *, jitter: float) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed, or None to give up.

        `jitter` in [0, 1) spreads callers that failed together over half of the delay.
        """
        if attempt >= self.attempts:
            return None
        if error.code is Code.RESOURCE_EXHAUSTED and error.retry_after is not None:
            return error.retry_after
        if error.code not in self.codes:
            return None
        backoff = min(self.max_delay, self.initial_delay * self.multiplier ** (attempt - 1))
        return max(backoff * (0.5 + jitter / 2), error.retry_after or 0.0)


NO_RETRIES = RetryPolicy(attempts=1)


def draw_jitter() -> float:
    """A fresh jitter; not for secrets."""
    return random.random()
