"""Connections, the rows that are synced over them and how far that is, and what budgets are used for."""

import sqlalchemy as sa
from alembic import op

revision = "0006_connections"
down_revision = "0005_events"
branch_labels = None
depends_on = None

LIVE_CHILD = sa.text("parent_id IS NOT NULL AND deleted_at IS NULL")


def upgrade() -> None:
    """Make the tables and add the columns."""
    op.create_table(
        "connections",
        sa.Column("connection_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("credentials", sa.Text, nullable=False),
        sa.Column("credentials_version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("frozen_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("last_synced_at", sa.BigInteger),
        sa.Column("last_job_id", sa.Text),
        sa.UniqueConstraint("tenant", "provider", "account", name="connections_once"),
    )
    op.create_index("connections_by_provider", "connections", ["provider", "state"])
    op.create_table(
        "sync_places",
        sa.Column("connection_id", sa.Text, primary_key=True),
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("place", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sync_left_out",
        sa.Column("connection_id", sa.Text, primary_key=True),
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("parent_id", sa.Text, primary_key=True),
    )
    op.create_table(
        "synced_rows",
        sa.Column("connection_id", sa.Text, primary_key=True),
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("row_id", sa.Text, primary_key=True),
        sa.Column("parent_id", sa.Text),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("vendor_updated_at", sa.Text),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("seen_pass", sa.Text),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "synced_rows_by_parent",
        "synced_rows",
        ["connection_id", "resource", "parent_id"],
        sqlite_where=LIVE_CHILD,
        postgresql_where=LIVE_CHILD,
    )
    op.add_column("budgets", sa.Column("pace", sa.BigInteger))
    op.add_column("budgets", sa.Column("pace_until", sa.BigInteger))
    op.add_column("budgets", sa.Column("call_limit", sa.Integer))
    op.add_column("budgets", sa.Column("per", sa.BigInteger))
    op.add_column("budgets", sa.Column("aligned", sa.Boolean))
    op.add_column("budgets", sa.Column("window_started_at", sa.BigInteger))
    op.add_column("budgets", sa.Column("used", sa.Integer, nullable=False, server_default="0"))
    op.add_column("budgets", sa.Column("last_used_at", sa.BigInteger))
