"""Routes with their snapshots, and endpoints with their leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "routes",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
    )
    op.create_table(
        "route_snapshots",
        sa.Column("uid", sa.String(), primary_key=True),
        sa.Column("generation", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("creator", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("create_time", sa.Float(), nullable=False),
    )
    op.create_index("ix_route_snapshots_name", "route_snapshots", ["name"])
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("ttl", sa.Float(), nullable=False),
        sa.Column("register_time", sa.Float(), nullable=False),
        sa.Column("drain_time", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    op.drop_table("endpoints")
    op.drop_index("ix_route_snapshots_name", "route_snapshots")
    op.drop_table("route_snapshots")
    op.drop_table("routes")
