"""google.longrunning.Operations over `Operations`."""

from typing import Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2

from chassis import errors
from chassis.operations.model import Operation, Packed
from chassis.operations.runner import Operations

SERVICE = "google.longrunning.Operations"
add_to_server = operations_pb2_grpc.add_OperationsServicer_to_server


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # untyped generated code
    """Converts, calls, converts."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def ListOperations(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Newest first; `filter` takes `done=…` and `kind=…`."""
        if request.name not in ("", "operations"):
            raise _wrong_name("name", request.name, "operations")
        page = await self._operations.list(
            filter=request.filter, page_size=request.page_size, page_token=request.page_token
        )
        return operations_pb2.ListOperationsResponse(
            operations=[to_proto(item) for item in page.operations], next_page_token=page.next_token
        )

    async def GetOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """The operation as it is now."""
        return to_proto(await self._operations.get(_name(request.name)))

    async def DeleteOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Forgets the operation without stopping its work."""
        await self._operations.delete(_name(request.name))
        return empty_pb2.Empty()

    async def CancelOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Asks its work to stop."""
        await self._operations.cancel(_name(request.name))
        return empty_pb2.Empty()

    async def WaitOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Done, or as it is after the timeout; answers shortly before the caller's own deadline."""
        timeout = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
        if timeout is not None and timeout < 0:
            raise errors.InvalidArgument(
                "timeout must not be negative",
                reason="TIMEOUT_INVALID",
                violations=[errors.FieldViolation("timeout", "must not be negative")],
            )
        remaining = context.time_remaining()
        if remaining is not None:
            margin = max(0.0, remaining - min(0.25, remaining / 4))
            timeout = margin if timeout is None else min(timeout, margin)
        return to_proto(await self._operations.wait(_name(request.name), timeout))


def to_proto(operation: Operation) -> operations_pb2.Operation:
    """The contract's message of an operation."""
    message = operations_pb2.Operation(name=operation.name, done=operation.done)
    if operation.metadata is not None:
        message.metadata.CopyFrom(_any(operation.metadata))
    if operation.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(operation.error))
    elif operation.response is not None:
        message.response.CopyFrom(_any(operation.response))
    return message


def _any(packed: Packed) -> any_pb2.Any:
    return any_pb2.Any(type_url=packed.type_url, value=packed.value)


def _name(name: str) -> str:
    collection, _, identifier = name.partition("/")
    if collection != "operations" or not identifier:
        raise _wrong_name("name", name, "operations/{operation}")
    return name


def _wrong_name(field: str, name: str, pattern: str) -> errors.Error:
    return errors.InvalidArgument(
        f"{name!r} is not of the form {pattern}",
        reason="NAME_INVALID",
        violations=[errors.FieldViolation(field, f"must be of the form {pattern}")],
    )
