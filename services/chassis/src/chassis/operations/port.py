"""The port behind which operations are kept."""

from collections.abc import Sequence
from typing import Protocol

from chassis.operations.model import Operation, OperationFilter


class OperationStore(Protocol):
    """Keeps operations. Newest first is the order of lists: by creation time, then name, both descending."""

    async def create(self, operation: Operation) -> None:
        """Keeps a new one. Raises AlreadyExists."""
        ...

    async def get(self, name: str) -> Operation | None:
        """The operation of this name."""
        ...

    async def list(
        self, wanted: OperationFilter, *, after: tuple[float, str] | None, limit: int
    ) -> Sequence[Operation]:
        """At most `limit` operations that come after this (created, name) position."""
        ...

    async def replace(self, operation: Operation) -> bool:
        """Writes it as revision + 1 if the stored one still has its revision; says whether it did."""
        ...

    async def delete(self, name: str) -> bool:
        """Forgets an operation; says whether it was there."""
        ...
