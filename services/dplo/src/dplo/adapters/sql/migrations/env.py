"""What alembic runs: the migrations on the connection that the service gives it."""

from alembic import context

from dplo.adapters.sql.tables import schema

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=schema, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
