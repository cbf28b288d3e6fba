"""The tables, as the newest migration leaves them."""

from sqlalchemy import (
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

schema = MetaData()

deployments = Table(
    "deployments",
    schema,
    Column("name", String(200), primary_key=True),
    Column("project", String(64), nullable=False, index=True),
    Column("model", String(200), nullable=False, unique=True),
    Column("row", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

revisions = Table(
    "revisions",
    schema,
    Column("deployment", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(["deployment"], ["deployments.name"], ondelete="CASCADE"),
)

events = Table(
    "events",
    schema,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(200), nullable=False),
    Column("type", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("shares", LargeBinary, nullable=False),
    ForeignKeyConstraint(["deployment"], ["deployments.name"], ondelete="CASCADE"),
    Index("events_of_deployment", "deployment", "sequence"),
    sqlite_autoincrement=True,
)
