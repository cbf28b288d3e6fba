"""Retry budget: retries may be a share of the calls, plus a few, so that they never multiply an overload."""

BURST = 1000.0
"""Retries that may be saved up: a replica that dies fails everything it had in flight at one moment."""


class RetryBudget:
    """A bucket of retries, filled by calls and by time. The hot path only counts calls; sums are done at a
    retry.
    """

    __slots__ = ("_counted", "_per_second", "_percent", "_time", "_tokens", "calls")

    def __init__(self, percent: float, min_per_second: float, now: float) -> None:
        self._percent = percent
        self._per_second = min_per_second
        self._tokens = BURST
        self._time = now
        self._counted = 0
        self.calls = 0

    def configure(self, percent: float, min_per_second: float) -> None:
        """Takes a changed policy on; what was saved up stays."""
        self._percent = percent
        self._per_second = min_per_second

    def take(self, now: float) -> bool:
        """Takes one retry if there is one."""
        earned = (self.calls - self._counted) * self._percent / 100.0 + (now - self._time) * self._per_second
        self._tokens = min(BURST, self._tokens + earned)
        self._counted = self.calls
        self._time = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
