"""Broadcasts, what became of their chunks, and sets of recipients, their own or an audience's."""

import sqlalchemy as sa
from alembic import op

revision = "0004_broadcasts"
down_revision = "0003_notifications"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "recipient_sets",
        sa.Column("set_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("total", sa.Integer),
        sa.Column("report", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "recipients",
        sa.Column("set_id", sa.Text, primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("target_id", sa.Text),
        sa.Column("data", sa.JSON),
        sa.UniqueConstraint("set_id", "who", name="recipients_once"),
    )
    op.create_table(
        "audiences",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("set_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "broadcasts",
        sa.Column("broadcast_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("set_id", sa.Text, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("urgent", sa.Boolean, nullable=False),
        sa.Column("mandatory", sa.Boolean, nullable=False),
        sa.Column("routes", sa.JSON, nullable=False),
        sa.Column("every", sa.Boolean, nullable=False),
        sa.Column("resend", sa.Boolean, nullable=False),
        sa.Column("template", sa.Text),
        sa.Column("content", sa.JSON),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Text),
    )
    op.create_table(
        "broadcast_chunks",
        sa.Column("broadcast_id", sa.Text, primary_key=True),
        sa.Column("first_line", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.Text, primary_key=True),
        sa.Column("recipients", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
