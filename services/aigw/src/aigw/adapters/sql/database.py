"""The SQLite file: opened, migrated to the newest schema, closed."""

import contextlib
import fcntl
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from chassis import errors
from chassis.telemetry.logs import get_logger
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@contextlib.asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[AsyncEngine]:
    """The engine of a database file, made and migrated if need be. Raises FailedPrecondition if it cannot
    be used, or is used by another process.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, str(error)) from error
    with _held(path):
        async with _opened(path) as engine:
            yield engine


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    event.listen(engine.sync_engine, "connect", _configure)
    try:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
        except (SQLAlchemyError, CommandError) as error:
            raise _unusable(path, str(error)) from error
        yield engine
    finally:
        await engine.dispose()


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """One gateway at a time: each keeps routes and endpoints in memory and would not see what another
    writes. The kernel releases it with the process, however that ends.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        file = lock.open("a")
    except OSError as error:
        raise _unusable(path, str(error)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _unusable(
                path, "another gateway uses it; give each its own with AIGW_STORE__PATH"
            ) from error
        yield


def migrate(connection: Connection) -> None:
    """Brings the schema up to the newest revision: wholly or, if it is killed, not at all.

    A database of a newer Penstock is refused.
    """
    # The driver begins no transaction of its own before DDL: each table would be there at once, the revision
    # that says so would not, and the next start would fail at a table that exists.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = Config()
    config.set_main_option("script_location", str(resources.files("aigw.adapters.sql") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def newest_revision() -> str | None:
    """The revision that `migrate` brings a database to."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("aigw.adapters.sql") / "migrations"))
    return ScriptDirectory.from_config(config).get_current_head()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Database errors as our own."""
    try:
        yield
    except SQLAlchemyError as error:
        # The caller can do nothing about the cause, the operator can. Not the statement: it holds documents.
        cause = error.orig if isinstance(error, DBAPIError) else error
        get_logger("penstock.aigw").error("the database cannot be used", error=str(cause))
        raise errors.Unavailable(
            "the gateway's database could not be used; nothing was changed", reason="STORE_UNAVAILABLE"
        ) from error


def _configure(connection: Any, _record: Any) -> None:
    """Readers never wait for the writer, and a second process for at most five seconds."""
    cursor = connection.cursor()
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _unusable(path: Path, why: str) -> errors.FailedPrecondition:
    return errors.FailedPrecondition(
        f"the gateway's database {path} cannot be used: {why}",
        reason="STORE_UNUSABLE",
        metadata={"path": str(path)},
    )
