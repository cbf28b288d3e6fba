"""google.longrunning over operations: names, timeouts and messages."""

import asyncio
from typing import Any

import pytest
from chassis import errors
from chassis.operations import MemoryOperationStore, Operations, Progress
from chassis.operations.servicer import OperationsServicer
from chassis.testing import FakeClock
from google.longrunning import operations_pb2 as pb
from google.protobuf import duration_pb2


class Context:
    def __init__(self, remaining: float | None = None) -> None:
        self.remaining = remaining

    def time_remaining(self) -> float | None:
        return self.remaining


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def operations(clock: FakeClock):
    async with Operations(MemoryOperationStore(), clock=clock) as opened:
        yield opened


@pytest.fixture
def servicer(operations: Operations) -> OperationsServicer:
    return OperationsServicer(operations)


async def forever(progress: Progress) -> None:
    await asyncio.Event().wait()


async def fail(progress: Progress) -> None:
    raise errors.FailedPrecondition("not ready", reason="NOT_READY")


@pytest.mark.parametrize("name", ["", "x", "operations/", "projects/p/operations/x"])
@pytest.mark.parametrize("method", ["GetOperation", "DeleteOperation", "CancelOperation", "WaitOperation"])
async def test_a_name_of_another_form_is_refused(
    servicer: OperationsServicer, name: str, method: str
) -> None:
    request = getattr(pb, f"{method}Request")(name=name)
    with pytest.raises(errors.InvalidArgument) as caught:
        await getattr(servicer, method)(request, Context())
    assert [v.field for v in caught.value.violations] == ["name"]


async def test_a_list_is_of_the_one_collection(servicer: OperationsServicer) -> None:
    with pytest.raises(errors.InvalidArgument):
        await servicer.ListOperations(pb.ListOperationsRequest(name="projects/p"), Context())
    answer = await servicer.ListOperations(pb.ListOperationsRequest(), Context())
    assert list(answer.operations) == []


async def test_a_failed_operation_carries_its_status(operations: Any, servicer: OperationsServicer) -> None:
    name = (await operations.start("Build", fail, metadata=duration_pb2.Duration(seconds=2))).name
    done = await servicer.WaitOperation(pb.WaitOperationRequest(name=name), Context())
    assert done.WhichOneof("result") == "error"
    assert (done.error.code, done.error.message) == (9, "not ready")
    metadata = duration_pb2.Duration()
    assert done.metadata.Unpack(metadata)
    assert metadata.seconds == 2


async def test_waiting_ends_with_the_timeout_asked_for(operations: Any, servicer, clock: FakeClock) -> None:
    name = (await operations.start("Build", forever)).name
    request = pb.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(seconds=3))
    waiting = asyncio.create_task(servicer.WaitOperation(request, Context()))
    await clock.advance(2.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert not (await waiting).done


async def test_waiting_answers_before_the_caller_s_deadline(
    operations: Any, servicer, clock: FakeClock
) -> None:
    name = (await operations.start("Build", forever)).name
    waiting = asyncio.create_task(servicer.WaitOperation(pb.WaitOperationRequest(name=name), Context(4.0)))
    await clock.advance(3.7)
    assert not waiting.done()
    await clock.advance(0.1)
    assert not (await waiting).done


async def test_a_negative_timeout_is_refused(operations: Any, servicer: OperationsServicer) -> None:
    name = (await operations.start("Build", forever)).name
    request = pb.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(seconds=-1))
    with pytest.raises(errors.InvalidArgument, match="timeout"):
        await servicer.WaitOperation(request, Context())


async def test_cancel_and_delete_answer_empty(operations: Any, servicer, clock: FakeClock) -> None:
    name = (await operations.start("Build", forever)).name
    await clock.settle()
    await servicer.CancelOperation(pb.CancelOperationRequest(name=name), Context())
    await clock.settle()
    assert (await servicer.GetOperation(pb.GetOperationRequest(name=name), Context())).error.code == 1
    await servicer.DeleteOperation(pb.DeleteOperationRequest(name=name), Context())
    with pytest.raises(errors.NotFound):
        await servicer.GetOperation(pb.GetOperationRequest(name=name), Context())
