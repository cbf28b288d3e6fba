"""Migrations of the database, by alembic, run when the service starts."""
