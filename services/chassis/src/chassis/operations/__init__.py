"""Long-running operations (AIP-151): work that outlives the call that began it.

A service starts work with `Operations.start`, answers the returned operation, and serves
`OperationsServicer`. Stores: `MemoryOperationStore`, `chassis.operations.sql.SqlOperationStore`.
`chassis.operations.sql` and `chassis.operations.servicer` are imported by name, so that application code
using `Operations` pulls in neither.
"""

from chassis.operations.memory import MemoryOperationStore
from chassis.operations.model import Operation, OperationFilter, Packed, Page, pack
from chassis.operations.port import OperationStore
from chassis.operations.runner import Operations, Progress, Work

__all__ = [
    "MemoryOperationStore",
    "Operation",
    "OperationFilter",
    "OperationStore",
    "Operations",
    "Packed",
    "Page",
    "Progress",
    "Work",
    "pack",
]
