"""The database file: migrated when opened, the same as the schema says, refused when it cannot be used."""

import asyncio
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from aigw.adapters.sql.database import newest_revision, open_database
from aigw.adapters.sql.schema import metadata
from aigw.adapters.sql.stores import SqlRouteStore
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from chassis import errors
from sqlalchemy import Connection

KILLED_WHILE_MIGRATING = """
import asyncio, os, signal, sys
from pathlib import Path
from aigw.adapters.sql.database import open_database
from sqlalchemy import Engine, event

@event.listens_for(Engine, "after_cursor_execute")
def executed(connection, cursor, statement, *_):
    if statement.strip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(open_database(Path(sys.argv[1])).__aenter__())
"""


async def test_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    def compare(connection: Connection) -> tuple[object, str | None]:
        context = MigrationContext.configure(connection)
        return compare_metadata(context, metadata), context.get_current_revision()

    async with open_database(tmp_path / "aigw.db") as engine, engine.connect() as connection:
        differences, revision = await connection.run_sync(compare)
    assert differences == []
    assert revision == newest_revision()


async def test_a_database_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_database(tmp_path / "aigw.db") as engine:
            assert list(await SqlRouteStore(engine).load()) == []


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE alembic_version", "CREATE TABLE route", "INSERT INTO alembic"]
)
async def test_a_start_that_was_killed_while_it_made_the_tables_hinders_no_other(
    tmp_path: Path, statement: str
) -> None:
    path = tmp_path / "aigw.db"
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_WHILE_MIGRATING, str(path), statement
    )
    assert await first.wait() == -signal.SIGKILL
    async with open_database(path) as engine:
        assert await SqlRouteStore(engine).load() == []


async def test_a_database_has_one_gateway_at_a_time(tmp_path: Path) -> None:
    async with open_database(tmp_path / "aigw.db"):
        with pytest.raises(errors.FailedPrecondition, match=r"aigw\.db cannot be used: another gateway"):
            async with open_database(tmp_path / "aigw.db"):
                pass


async def test_a_database_of_a_newer_penstock_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path / "aigw.db"):
        pass
    with sqlite3.connect(tmp_path / "aigw.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(errors.FailedPrecondition, match=r"aigw\.db cannot be used.*9999"):
        async with open_database(tmp_path / "aigw.db"):
            pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aigw.db").write_text("routes:\n" * 200)
    with pytest.raises(errors.FailedPrecondition, match="not a database"):
        async with open_database(tmp_path / "aigw.db"):
            pass


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FailedPrecondition, match="cannot be used"):
        async with open_database(tmp_path / "file" / "aigw.db"):
            pass


async def test_an_error_of_the_database_is_unavailable_and_its_cause_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(tmp_path / "aigw.db") as engine:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE routes")
        with pytest.raises(errors.Unavailable, match="nothing was changed"):
            await SqlRouteStore(engine).load()
    assert "no such table: routes" in caplog.text
