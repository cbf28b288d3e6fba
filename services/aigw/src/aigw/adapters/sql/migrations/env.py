"""Alembic's entry: migrates over the connection that the gateway gives."""

from aigw.adapters.sql.schema import metadata
from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
