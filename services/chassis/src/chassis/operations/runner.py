"""Runs operations: starts work, keeps its record, and takes over or ends what a dead process left behind.

The runner owns the tasks of its operations. It renews the ownership of what it runs; an unfinished operation
whose ownership ran out belongs to a process that died. Kinds with a resumer are taken up again, all others
are ended with ABORTED, so that nobody waits for ever for work that nobody does.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from chassis import errors, status
from chassis.clock import Clock, SystemClock
from chassis.errors import Error
from chassis.operations.model import Operation, OperationFilter, PackableMessage, Packed, Page, pack
from chassis.operations.port import OperationStore
from chassis.telemetry.logs import get_logger

_POLL = 0.5  # seconds between looks at an operation that another replica runs
MAX_PAGE = 1000
DEFAULT_PAGE = 50


class Progress:
    """The running work's view of its operation."""

    def __init__(self, operations: "Operations", operation: Operation) -> None:
        self._operations = operations
        self.operation = operation

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name

    async def update(self, metadata: PackableMessage | Packed) -> None:
        """Publishes how far the work is."""
        packed = pack(metadata)
        changed = await self._operations.amend(self.name, lambda current: replace(current, metadata=packed))
        if changed is not None:
            self.operation = changed


Work = Callable[[Progress], Awaitable[PackableMessage | Packed | None]]


class Operations:
    """The operations of one service instance; an async context manager that owns their tasks.

    `resumers` says, by kind, how to go on with an operation whose process died. `ownership` is how long, in
    seconds, a process may be silent before it counts as dead. `exclusive` says that no other process uses the
    store, so whatever is unfinished at the start is orphaned. Finished operations are kept `retention`
    seconds.
    """

    def __init__(
        self,
        store: OperationStore,
        *,
        clock: Clock | None = None,
        resumers: Mapping[str, Work] | None = None,
        exclusive: bool = True,
        ownership: float = 30.0,
        retention: float = 7 * 24 * 3600.0,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._resumers = dict(resumers or {})
        self._exclusive = exclusive
        self._ownership = ownership
        self._retention = retention
        self._new_id = new_id
        self._owner = new_id()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._finished: dict[str, asyncio.Event] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._log = get_logger("penstock.operations")

    async def __aenter__(self) -> Self:
        await self.adopt(everything=self._exclusive)
        self._keeper = asyncio.create_task(self._keep(), name="operations/keep")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [*self._tasks.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def start(
        self,
        kind: str,
        work: Work,
        *,
        metadata: PackableMessage | Packed | None = None,
        operation_id: str | None = None,
    ) -> Operation:
        """Records an operation and starts its work. The work's answer becomes the response."""
        now = self._clock.time()
        operation = Operation(
            name=f"operations/{operation_id or self._new_id()}",
            kind=kind,
            owner=self._owner,
            owned_until=now + self._ownership,
            created=now,
            updated=now,
            metadata=pack(metadata) if metadata is not None else None,
        )
        await self._store.create(operation)
        self._launch(operation, work)
        return operation

    async def get(self, name: str) -> Operation:
        """Raises NotFound."""
        operation = await self._store.get(name)
        if operation is None:
            raise errors.NotFound(
                f"there is no operation {name!r}", reason="OPERATION_NOT_FOUND", metadata={"operation": name}
            )
        return operation

    async def list(self, *, filter: str = "", page_size: int = 0, page_token: str = "") -> Page:  # noqa: A002
        """Newest first. Raises InvalidArgument for a filter, size or token that makes no sense."""
        if page_size < 0:
            raise _bad_page("page_size", f"must not be negative, is {page_size}")
        limit = min(page_size or DEFAULT_PAGE, MAX_PAGE)
        wanted = OperationFilter.parse(filter)
        after = _position(page_token, filter) if page_token else None
        found = list(await self._store.list(wanted, after=after, limit=limit + 1))
        token = _token(found[limit - 1], filter) if len(found) > limit else ""
        return Page(tuple(found[:limit]), token)

    async def wait(self, name: str, timeout: float | None = None) -> Operation:
        """The operation once it is done, or as it is after `timeout` seconds."""
        operation = await self.get(name)
        limit = None if timeout is None else self._clock.monotonic() + timeout
        while not operation.done:
            pause = None if limit is None else limit - self._clock.monotonic()
            if pause is not None and pause <= 0:
                break
            await self._until_changed(name, pause)
            operation = await self.get(name)
        return operation

    async def cancel(self, name: str) -> None:
        """Asks the work to stop; it may still succeed. Cancelling what is done changes nothing."""
        if (await self.get(name)).done:
            return
        changed = await self.amend(name, lambda current: replace(current, cancel_requested=True))
        task = self._tasks.get(name)
        if changed is not None and task is not None:
            task.cancel()

    async def delete(self, name: str) -> None:
        """Forgets an operation; work that still runs goes on unseen. Raises NotFound."""
        if not await self._store.delete(name):
            await self.get(name)

    async def amend(self, name: str, change: Callable[[Operation], Operation]) -> Operation | None:
        """Changes an unfinished operation, again if somebody was faster; None when it is gone or done."""
        while True:
            current = await self._store.get(name)
            if current is None or current.done:
                return None
            changed = replace(change(current), updated=self._clock.time())
            if await self._store.replace(changed):
                return replace(changed, revision=changed.revision + 1)

    async def adopt(self, *, everything: bool = False) -> None:
        """Resumes or aborts what is unfinished and owned by nobody alive."""
        async for operation in self._unfinished():
            dead = everything or operation.owned_until <= self._clock.time()
            if operation.owner == self._owner or not dead:
                continue
            mine = replace(operation, owner=self._owner, owned_until=self._clock.time() + self._ownership)
            if not await self._store.replace(mine):
                continue  # another replica was faster
            mine = replace(mine, revision=mine.revision + 1)
            resumer = self._resumers.get(operation.kind)
            if resumer is not None and not operation.cancel_requested:
                self._log.info("resuming an operation of a dead process", operation=operation.name)
                self._launch(mine, resumer)
            else:
                await self._finish(mine.name, error=_orphaned(mine))

    async def keep_once(self) -> None:
        """One round of housekeeping: renew ownership, see cancellations, adopt orphans, forget the old."""
        until = self._clock.time() + self._ownership
        for name, task in list(self._tasks.items()):
            current = await self.amend(name, lambda o: replace(o, owned_until=until))
            if current is not None and current.cancel_requested:
                task.cancel()
        await self.adopt()
        await self._forget_old()

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(self._ownership / 3)
            try:
                await self.keep_once()
            except Error as error:
                self._log.warning("housekeeping of operations failed, trying again", error=str(error))

    def _launch(self, operation: Operation, work: Work) -> None:
        self._finished[operation.name] = asyncio.Event()
        self._tasks[operation.name] = asyncio.create_task(
            self._run(operation, work), name=f"{operation.kind} {operation.name}"
        )

    async def _run(self, operation: Operation, work: Work) -> None:
        name = operation.name
        try:
            answer = await work(Progress(self, operation))
            await self._finish(name, response=pack(answer) if answer is not None else _EMPTY)
        except asyncio.CancelledError:
            await self._cancelled(name)
        except Error as error:
            await self._finish(name, error=error)
        except Exception as error:  # noqa: BLE001 - the last line of the work: told in the log and generically
            self._log.error("an operation failed unexpectedly", operation=name, exc_info=error)
            await self._finish(name, error=status.unknown(error))
        finally:
            self._tasks.pop(name, None)
            self._finished.pop(name).set()

    async def _cancelled(self, name: str) -> None:
        """Cancelled by a caller, or because the service stops: then a kind that can be resumed is left for
        it.
        """
        operation = await self._store.get(name)
        if operation is None:
            return
        if operation.cancel_requested:
            await self._finish(
                name, error=errors.Cancelled(f"{name} was cancelled", reason="OPERATION_CANCELLED")
            )
        elif operation.kind in self._resumers:
            await self.amend(name, lambda current: replace(current, owned_until=0.0))
        else:
            await self._finish(name, error=_orphaned(operation))

    async def _finish(self, name: str, *, response: Packed | None = None, error: Error | None = None) -> None:
        failure = status.to_status(error).SerializeToString() if error is not None else None
        try:
            await self.amend(name, lambda o: replace(o, done=True, response=response, error=failure))
        except Error as unwritten:
            # Its ownership runs out and the next keeper ends it: nothing more can be done from here.
            self._log.error(
                "the end of an operation could not be written", operation=name, exc_info=unwritten
            )

    async def _until_changed(self, name: str, timeout: float | None) -> None:
        """Until this process finishes the operation, the timeout, or (when another runs it) the next look."""
        finished = self._finished.get(name)
        if finished is None:
            await self._clock.sleep(_POLL if timeout is None else min(_POLL, timeout))
            return
        waiter = asyncio.ensure_future(finished.wait())
        if timeout is None:
            await waiter
            return
        sleeper = asyncio.ensure_future(self._clock.sleep(timeout))
        try:
            await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiter, sleeper):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(waiter, sleeper, return_exceptions=True)

    async def _unfinished(self) -> AsyncIterator[Operation]:
        async for operation in self._all(OperationFilter(done=False)):
            yield operation

    async def _forget_old(self) -> None:
        oldest = self._clock.time() - self._retention
        async for operation in self._all(OperationFilter(done=True)):
            if operation.updated < oldest:
                await self._store.delete(operation.name)

    async def _all(self, wanted: OperationFilter) -> AsyncIterator[Operation]:
        after = None
        while True:
            found = await self._store.list(wanted, after=after, limit=MAX_PAGE)
            for operation in found:
                yield operation
            if len(found) < MAX_PAGE:
                return
            after = (found[-1].created, found[-1].name)


_EMPTY = Packed("type.googleapis.com/google.protobuf.Empty", b"")


def _orphaned(operation: Operation) -> Error:
    return errors.Aborted(
        f"{operation.kind} was interrupted: the process that ran it ended before it was done; start it again",
        reason="OPERATION_INTERRUPTED",
        metadata={"operation": operation.name},
    )


def _token(last: Operation, filter_text: str) -> str:
    position = json.dumps([last.created, last.name, filter_text])
    return base64.urlsafe_b64encode(position.encode()).decode()


def _position(token: str, filter_text: str) -> tuple[float, str]:
    try:
        decoded: Any = json.loads(base64.urlsafe_b64decode(token.encode()))
        created, name, given = decoded
        position = (float(created), str(name))
    except (ValueError, TypeError, binascii.Error) as error:
        raise _bad_page("page_token", "is not one this service gave") from error
    if given != filter_text:
        raise _bad_page("page_token", "belongs to a list with another filter")
    return position


def _bad_page(field: str, what: str) -> Error:
    return errors.InvalidArgument(
        f"{field} {what}", reason="PAGE_INVALID", violations=[errors.FieldViolation(field, what)]
    )
