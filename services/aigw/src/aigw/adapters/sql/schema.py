"""The tables, as the newest migration leaves them."""

from sqlalchemy import JSON, Column, Float, Integer, MetaData, String, Table

metadata = MetaData()

routes = Table(
    "routes",
    metadata,
    Column("name", String, primary_key=True),
    Column("uid", String, nullable=False),
    Column("generation", Integer, nullable=False),
)

route_snapshots = Table(
    "route_snapshots",
    metadata,
    Column("uid", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("document", JSON, nullable=False),
    Column("creator", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("trace_id", String, nullable=False),
    Column("create_time", Float, nullable=False),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", String, primary_key=True),
    Column("document", JSON, nullable=False),
    Column("lease_id", String, nullable=False),
    Column("ttl", Float, nullable=False),
    Column("register_time", Float, nullable=False),
    Column("drain_time", Float, nullable=False),
)
