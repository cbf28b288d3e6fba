"""StateStore and HistoryStore on SQLAlchemy: SQLite for one process; the statements are plain SQL."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from chassis import errors
from sqlalchemy import Connection, delete, event, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dplo.adapters.sql import codec
from dplo.adapters.sql.tables import deployments, events, revisions
from dplo.app.events import Event, EventType
from dplo.app.ports import Change
from dplo.domain.deployment import Deployment, Revision
from dplo.domain.names import DeploymentName
from dplo.domain.rollout import Phase

EVENTS_KEPT = 1000


def open_engine(path: Path) -> AsyncEngine:
    """The database file, made if it is not there; one connection, as SQLite has one writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        # First this: the next one may have to wait for a process that is ending.
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


class SqlStore:
    """Deployments, their history and their events. Use as an async context manager, which migrates."""

    def __init__(self, engine: AsyncEngine, events_kept: int = EVENTS_KEPT) -> None:
        self._engine = engine
        self._events_kept = events_kept
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> "SqlStore":
        async with self._begin() as connection:
            await connection.run_sync(migrate)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    async def read(self, name: DeploymentName) -> Deployment | None:
        """See StateStore."""
        query = select(deployments.c.content, deployments.c.row).where(deployments.c.name == str(name))
        async with self._begin() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else codec.read_deployment(row.content)

    async def list(self, project: str | None, after: str, limit: int) -> Sequence[Deployment]:
        """See StateStore."""
        query = select(deployments.c.content).order_by(deployments.c.name).limit(limit)
        query = query.where(deployments.c.name > after)
        if project is not None:
            query = query.where(deployments.c.project == project)
        async with self._begin() as connection:
            return [codec.read_deployment(row.content) for row in await connection.execute(query)]

    async def find_model(self, model: str) -> Deployment | None:
        """See StateStore."""
        query = select(deployments.c.content).where(deployments.c.model == model)
        async with self._begin() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else codec.read_deployment(row.content)

    async def write(self, change: Change) -> Deployment:
        """See StateStore."""
        written = replace(change.deployment, row=change.deployment.row + 1)
        async with self._writing, self._begin() as connection:
            await _put_deployment(connection, change.deployment.row, written)
            for revision in change.revisions:
                await _put_revision(connection, str(written.name), revision)
            for happened in change.events:
                await _put_event(connection, str(written.name), happened, self._events_kept)
        return written

    async def remove(self, name: DeploymentName, row: int) -> None:
        """See StateStore."""
        gone = delete(deployments).where(deployments.c.name == str(name), deployments.c.row == row)
        async with self._writing, self._begin() as connection:
            if not (await connection.execute(gone)).rowcount:
                raise _conflict(str(name))

    async def revision(self, name: DeploymentName, number: int) -> Revision | None:
        """See HistoryStore."""
        query = select(revisions.c.content).where(
            revisions.c.deployment == str(name), revisions.c.number == number
        )
        async with self._begin() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else codec.read_revision(row.content)

    async def revisions(self, name: DeploymentName, below: int | None, limit: int) -> Sequence[Revision]:
        """See HistoryStore."""
        query = select(revisions.c.content).where(revisions.c.deployment == str(name))
        query = query.order_by(revisions.c.number.desc()).limit(limit)
        if below is not None:
            query = query.where(revisions.c.number < below)
        async with self._begin() as connection:
            return [codec.read_revision(row.content) for row in await connection.execute(query)]

    async def events(self, name: DeploymentName, after: int, limit: int) -> Sequence[Event]:
        """See HistoryStore."""
        query = select(events).where(events.c.deployment == str(name), events.c.sequence > after)
        query = query.order_by(events.c.sequence).limit(limit)
        async with self._begin() as connection:
            return [_event(row) for row in await connection.execute(query)]

    async def event_range(self, name: DeploymentName) -> tuple[int, int]:
        """See HistoryStore."""
        query = select(func.min(events.c.sequence), func.max(events.c.sequence)).where(
            events.c.deployment == str(name)
        )
        async with self._begin() as connection:
            oldest, newest = (await connection.execute(query)).one()
        return oldest or 0, newest or 0

    @contextlib.asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction whose database errors are ours."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise errors.Aborted(
                "the deployment was written by somebody else at the same time; try again",
                reason="STATE_CONFLICT",
            ) from error
        except (SQLAlchemyError, OSError) as error:
            raise errors.Unavailable(
                f"the database of deployments cannot be used: {error}",
                reason="STORE_UNAVAILABLE",
                retry_after=1.0,
            ) from error


def migrate(connection: Connection) -> None:
    """Brings the database to the newest version of its tables: wholly or, if it is killed, not at all."""
    # The driver begins no transaction of its own before DDL: each table would be there at once, the version
    # that says so would not, and the next start would fail at a table that exists.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its chatter says nothing to an operator
    config = Config()
    with resources.as_file(resources.files("dplo.adapters.sql") / "migrations") as folder:
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


async def _put_deployment(connection: AsyncConnection, row: int, written: Deployment) -> None:
    name = str(written.name)
    values = {"row": written.row, "content": codec.write_deployment(written)}
    if row == 0:
        made = {"name": name, "project": written.name.project, "model": written.spec.model}
        await connection.execute(insert(deployments).values(**made, **values))
        return
    present = update(deployments).where(deployments.c.name == name, deployments.c.row == row)
    if not (await connection.execute(present.values(**values))).rowcount:
        raise _conflict(name)


async def _put_revision(connection: AsyncConnection, name: str, revision: Revision) -> None:
    content = codec.write_revision(revision)
    known = update(revisions).where(revisions.c.deployment == name, revisions.c.number == revision.number)
    if not (await connection.execute(known.values(content=content))).rowcount:
        await connection.execute(
            insert(revisions).values(deployment=name, number=revision.number, content=content)
        )


async def _put_event(connection: AsyncConnection, name: str, happened: Event, events_kept: int) -> None:
    result = await connection.execute(
        insert(events).values(
            deployment=name,
            type=happened.type.value,
            message=happened.message,
            at=happened.at,
            revision=happened.revision,
            phase=happened.phase.value,
            subject=happened.subject[:256],
            shares=codec.write_shares(happened.shares),
        )
    )
    newest = int(result.inserted_primary_key[0]) if result.inserted_primary_key else 0
    if newest % max(1, events_kept // 10) == 0:
        kept = (
            select(events.c.sequence)
            .where(events.c.deployment == name)
            .order_by(events.c.sequence.desc())
            .offset(events_kept)
            .limit(1)
            .scalar_subquery()
        )
        await connection.execute(delete(events).where(events.c.deployment == name, events.c.sequence <= kept))


def _event(row: Any) -> Event:
    return Event(
        EventType(row.type),
        row.message,
        row.at,
        row.revision,
        Phase(row.phase),
        row.subject,
        codec.read_shares(row.shares),
        row.sequence,
    )


def _conflict(name: str) -> errors.Aborted:
    return errors.Aborted(
        f"{name} was written by somebody else at the same time; try again", reason="STATE_CONFLICT"
    )
