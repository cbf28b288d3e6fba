"""Operations in a dictionary: for tests and for services whose work does not outlive the process."""

from collections.abc import Sequence
from dataclasses import replace

from chassis import errors
from chassis.operations.model import Operation, OperationFilter


class MemoryOperationStore:
    """An `OperationStore` in memory."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    async def create(self, operation: Operation) -> None:
        """See `OperationStore.create`."""
        if operation.name in self._operations:
            raise errors.AlreadyExists(f"{operation.name} exists", reason="OPERATION_EXISTS")
        self._operations[operation.name] = operation

    async def get(self, name: str) -> Operation | None:
        """See `OperationStore.get`."""
        return self._operations.get(name)

    async def list(
        self, wanted: OperationFilter, *, after: tuple[float, str] | None, limit: int
    ) -> Sequence[Operation]:
        """See `OperationStore.list`."""
        newest = sorted(self._operations.values(), key=lambda o: (o.created, o.name), reverse=True)
        found = [o for o in newest if wanted.matches(o) and (after is None or (o.created, o.name) < after)]
        return found[:limit]

    async def replace(self, operation: Operation) -> bool:
        """See `OperationStore.replace`."""
        stored = self._operations.get(operation.name)
        if stored is None or stored.revision != operation.revision:
            return False
        self._operations[operation.name] = replace(operation, revision=operation.revision + 1)
        return True

    async def delete(self, name: str) -> bool:
        """See `OperationStore.delete`."""
        return self._operations.pop(name, None) is not None
