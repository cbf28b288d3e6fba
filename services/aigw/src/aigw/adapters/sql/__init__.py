"""Routes and endpoints in SQLite, through SQLAlchemy, with Alembic migrations."""
