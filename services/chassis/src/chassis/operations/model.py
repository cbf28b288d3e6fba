"""The values of operations: pure, so that application code may hold them."""

import re
from dataclasses import dataclass
from typing import Protocol

from chassis import errors

_TERM = re.compile(r'^\s*(\w+)\s*=\s*("[^"]*"|[\w.\-/]+)\s*$')


@dataclass(frozen=True, slots=True)
class Packed:
    """A message as google.protobuf.Any has it: type URL and serialised value."""

    type_url: str
    value: bytes


class PackableMessage(Protocol):
    """What a protobuf message offers, said without importing protobuf."""

    @property
    def DESCRIPTOR(self) -> object:  # noqa: N802 - protobuf's own name
        """Knows `full_name`."""
        ...

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's own name
        """The bytes on the wire."""
        ...


def pack(message: "PackableMessage | Packed") -> Packed:
    """A message packed for an operation's metadata or response; what is packed already stays."""
    if isinstance(message, Packed):
        return message
    full_name = getattr(message.DESCRIPTOR, "full_name", "")
    return Packed(f"type.googleapis.com/{full_name}", message.SerializeToString())


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. Exactly one of `response` and `error` is set once it is done.

    `name` is `operations/{operation}`. `kind` says which work it is (`ApplyDeployment`), so that it can be
    resumed by the process that finds it orphaned. `owner` is the process instance that runs it and
    `owned_until` (seconds since the epoch) how long that one may be believed alive. `error` is a serialised
    google.rpc.Status. `revision` counts writes: a store refuses one based on an old revision.
    """

    name: str
    kind: str
    owner: str
    owned_until: float
    created: float
    updated: float
    done: bool = False
    metadata: Packed | None = None
    response: Packed | None = None
    error: bytes | None = None
    cancel_requested: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations to list; None does not narrow."""

    done: bool | None = None
    kind: str | None = None

    def matches(self, operation: Operation) -> bool:
        """Whether an operation is listed."""
        return self.done in (None, operation.done) and self.kind in (None, operation.kind)

    @classmethod
    def parse(cls, text: str) -> "OperationFilter":
        """Reads `done=true AND kind="ApplyDeployment"`. Raises InvalidArgument."""
        done: bool | None = None
        kind: str | None = None
        for term in filter(None, (part.strip() for part in re.split(r"\s+AND\s+", text.strip()))):
            match = _TERM.match(term)
            name, value = (match[1], match[2].strip('"')) if match else ("", "")
            if name == "done" and value in ("true", "false"):
                done = value == "true"
            elif name == "kind" and value:
                kind = value
            else:
                raise errors.InvalidArgument(
                    f"the filter term {term!r} is none of done=true, done=false and kind=NAME, joined by AND",
                    reason="FILTER_INVALID",
                    violations=[errors.FieldViolation("filter", f"cannot read {term!r}")],
                )
        return cls(done, kind)


@dataclass(frozen=True, slots=True)
class Page:
    """Some operations, and the token that continues after them (empty at the end)."""

    operations: tuple[Operation, ...]
    next_token: str
