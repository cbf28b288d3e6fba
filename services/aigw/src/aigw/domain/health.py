"""Health of a replica as its callers see it: failures in a row put it aside for a while, and it returns by
itself.
"""

from collections.abc import Mapping
from enum import Enum

from chassis import errors
from chassis.errors import Code
from chassis.transport.port import Upstream

from aigw.domain.endpoint import Endpoint
from aigw.domain.route import EjectionPolicy
from aigw.domain.upstream import HttpUpstream

FAILURE_CODES = frozenset({Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
"""Codes that are the replica's fault. A caller's own deadline and bad input are not."""


_LOST_CODES = frozenset({Code.UNAVAILABLE, Code.CANCELLED})

ANSWERED = "UPSTREAM_ANSWERED"
"""Reason of an error that stands for an HTTP answer: something was there, though it carries no details."""


class Failure(Enum):
    """What kind of failure an attempt was, as far as the replica's health goes."""

    NONE = 0
    """Not the replica's fault."""
    FAULT = 1
    """It answered, with an error that is its own."""
    UNREACHABLE = 2
    """It did not answer at all: dead, leaving, or cut off."""


def answered(error: errors.Error) -> bool:
    """Whether the replica itself said so: its details came along, or it was an HTTP answer."""
    return error.details is not None or error.reason == ANSWERED


def classify(error: errors.Error) -> Failure:
    """What an attempt's error says about the replica.

    UNAVAILABLE without the details that our servers and any good server put into an error is the
    transport's own: nothing was there to answer. So is CANCELLED, with which a server that stops ends what
    it still has.
    """
    if error.code in _LOST_CODES and not answered(error):
        return Failure.UNREACHABLE
    return Failure.FAULT if error.code in FAILURE_CODES else Failure.NONE


class Replica:
    """A registered endpoint with its connections and its health. Lives as long as its lease, across table
    swaps.

    Mutable on purpose: it is the one place where the hot path notes what it sees. All of it happens on one
    event loop, so plain attributes are enough.
    """

    __slots__ = (
        "draining",
        "ejected_until",
        "ejections",
        "endpoint",
        "failures",
        "grpc",
        "http",
        "id",
        "in_flight",
        "lease_id",
        "unreachable",
        "version",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        lease_id: str,
        grpc: Upstream,
        http: HttpUpstream | None,
        *,
        draining: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.id = endpoint.endpoint
        self.version = endpoint.version
        self.lease_id = lease_id
        self.grpc = grpc
        self.http = http
        self.draining = draining
        self.in_flight = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0
        self.unreachable = False

    @property
    def labels(self) -> Mapping[str, str]:
        """The endpoint's labels."""
        return self.endpoint.labels

    @property
    def ejected(self) -> bool:
        """Whether it is put aside."""
        return self.ejected_until > 0

    def succeeded(self) -> None:
        """Notes an answer: whatever was held against it is forgotten. The hot path skips this if nothing
        is.
        """
        self.failures = 0
        self.ejections = 0
        self.unreachable = False

    def failed(self, failure: Failure, policy: EjectionPolicy, now: float) -> bool:
        """Notes a failed attempt. True if the replica is to be put aside from now until `ejected_until`.

        An unreachable replica is put aside at once. One that returned and fails again is put aside again at
        its first failure, for twice as long.
        """
        if failure is Failure.NONE or policy.disabled:
            return False
        self.failures += 1
        if self.ejected:
            return False  # an attempt that began before it was put aside, or all others are put aside too
        if failure is Failure.UNREACHABLE:
            self.unreachable = True
        elif self.failures < policy.consecutive_failures and not self.ejections:
            return False
        duration = min(policy.base_ejection * 2.0**self.ejections, policy.max_ejection)
        self.ejections = min(self.ejections + 1, 32)
        self.ejected_until = now + duration
        return True

    def readmit(self) -> None:
        """Ends the ejection; the count of ejections stays until it has answered."""
        self.ejected_until = 0.0
        self.unreachable = False
