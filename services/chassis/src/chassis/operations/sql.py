"""Operations in a SQL database: SQLite for one process, PostgreSQL for several replicas."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    and_,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, IntegrityError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chassis import errors
from chassis.operations.model import Operation, OperationFilter, Packed

schema = MetaData()
table = Table(
    "operations",
    schema,
    Column("name", String(256), primary_key=True),
    Column("kind", String(128), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("owned_until", Float(53), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("updated", Float(53), nullable=False),
    Column("done", Boolean, nullable=False),
    Column("metadata_type", String(256)),
    Column("metadata_value", LargeBinary),
    Column("response_type", String(256)),
    Column("response_value", LargeBinary),
    Column("error", LargeBinary),
    Column("cancel_requested", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Index("operations_newest", "created", "name"),
    Index("operations_unfinished", "done", "owned_until"),
)


class SqlOperationStore:
    """An `OperationStore` on an engine that somebody else owns; `open` makes one of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["SqlOperationStore"]:
        """A store at a URL (`sqlite+aiosqlite:///path`, `postgresql+asyncpg://…`); makes the table if need
        be.
        """
        engine = _engine(url)
        try:
            store = cls(engine)
            await store.prepare()
            yield store
        finally:
            await engine.dispose()

    async def prepare(self) -> None:
        """Makes the table where migrations have not."""
        async with self._begin() as connection:
            await connection.run_sync(schema.create_all)

    async def create(self, operation: Operation) -> None:
        """See `OperationStore.create`."""
        try:
            async with self._begin() as connection:
                await connection.execute(insert(table).values(**_row(operation)))
        except errors.Unavailable as error:
            if isinstance(error.__cause__, IntegrityError):
                raise errors.AlreadyExists(f"{operation.name} exists", reason="OPERATION_EXISTS") from error
            raise

    async def get(self, name: str) -> Operation | None:
        """See `OperationStore.get`."""
        async with self._begin() as connection:
            row = (await connection.execute(select(table).where(table.c.name == name))).one_or_none()
        return None if row is None else _operation(row)

    async def list(
        self, wanted: OperationFilter, *, after: tuple[float, str] | None, limit: int
    ) -> Sequence[Operation]:
        """See `OperationStore.list`."""
        query = select(table).order_by(table.c.created.desc(), table.c.name.desc()).limit(limit)
        if wanted.done is not None:
            query = query.where(table.c.done == wanted.done)
        if wanted.kind is not None:
            query = query.where(table.c.kind == wanted.kind)
        if after is not None:
            created, name = after
            query = query.where(
                or_(table.c.created < created, and_(table.c.created == created, table.c.name < name))
            )
        async with self._begin() as connection:
            return [_operation(row) for row in await connection.execute(query)]

    async def replace(self, operation: Operation) -> bool:
        """See `OperationStore.replace`."""
        values = _row(operation) | {"revision": operation.revision + 1}
        statement = (
            update(table)
            .where(table.c.name == operation.name, table.c.revision == operation.revision)
            .values(**values)
        )
        async with self._begin() as connection:
            result = await connection.execute(statement)
        return bool(result.rowcount)

    async def delete(self, name: str) -> bool:
        """See `OperationStore.delete`."""
        async with self._begin() as connection:
            result = await connection.execute(delete(table).where(table.c.name == name))
        return bool(result.rowcount)

    @contextlib.asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction whose database errors are ours."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise errors.Unavailable(
                "the operation store cannot be reached", reason="STORE_UNAVAILABLE", retry_after=1.0
            ) from error


def _engine(url: str) -> AsyncEngine:
    """Raises InvalidArgument, without the password, for a URL or a driver that cannot be used."""
    scheme = url.partition(":")[0]
    try:
        return create_async_engine(url, pool_pre_ping=not scheme.startswith("sqlite"))
    except ModuleNotFoundError as error:
        raise errors.InvalidArgument(
            f"databases of {scheme!r} need the Python package {error.name!r}; install it",
            reason="DATABASE_DRIVER_MISSING",
        ) from error
    except (ArgumentError, InvalidRequestError) as error:
        raise errors.InvalidArgument(
            f"the database URL (scheme {scheme[:20]!r}) is none that works here; it looks like "
            "sqlite+aiosqlite:///PATH or postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE",
            reason="DATABASE_URL_INVALID",
        ) from error


def _row(operation: Operation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "kind": operation.kind,
        "owner": operation.owner,
        "owned_until": operation.owned_until,
        "created": operation.created,
        "updated": operation.updated,
        "done": operation.done,
        "metadata_type": operation.metadata.type_url if operation.metadata else None,
        "metadata_value": operation.metadata.value if operation.metadata else None,
        "response_type": operation.response.type_url if operation.response else None,
        "response_value": operation.response.value if operation.response else None,
        "error": operation.error,
        "cancel_requested": operation.cancel_requested,
        "revision": operation.revision,
    }


def _operation(row: Row[Any]) -> Operation:
    return Operation(
        name=row.name,
        kind=row.kind,
        owner=row.owner,
        owned_until=row.owned_until,
        created=row.created,
        updated=row.updated,
        done=row.done,
        metadata=_packed(row.metadata_type, row.metadata_value),
        response=_packed(row.response_type, row.response_value),
        error=row.error,
        cancel_requested=row.cancel_requested,
        revision=row.revision,
    )


def _packed(type_url: str | None, value: bytes | None) -> Packed | None:
    return None if type_url is None else Packed(type_url, value or b"")
