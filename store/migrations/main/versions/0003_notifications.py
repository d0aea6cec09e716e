"""People and how to reach them, what they want, what must not be used, notifications, budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0003_notifications"
down_revision = "0002_page_text_by_content"
branch_labels = None
depends_on = None

WAITS = "deferred_until IS NOT NULL AND woke_at IS NULL AND merged_into IS NULL"
MERGED = "merged_into IS NOT NULL"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "people",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("locale", sa.Text),
        sa.Column("zone", sa.Text),
        sa.Column("quiet_start", sa.Text),
        sa.Column("quiet_end", sa.Text),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "targets",
        sa.Column("target_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("tenant", "channel", "address", name="targets_once"),
    )
    op.create_index("targets_by_person", "targets", ["tenant", "person"])
    op.create_table(
        "preferences",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("allowed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "suppressions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("dead_since", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("suppressions_by_reason", "suppressions", ["channel", "reason", "created_at"])
    op.create_table(
        "notifications",
        sa.Column("notification_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("target_id", sa.Text),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("urgent", sa.Boolean, nullable=False),
        sa.Column("mandatory", sa.Boolean, nullable=False),
        sa.Column("routes", sa.JSON, nullable=False),
        sa.Column("every", sa.Boolean, nullable=False),
        sa.Column("resend", sa.Boolean, nullable=False),
        sa.Column("template", sa.Text),
        sa.Column("content", sa.JSON),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("attachments", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("deferred_until", sa.BigInteger),
        sa.Column("woke_at", sa.BigInteger),
        sa.Column("merged_into", sa.Text),
    )
    op.create_index(
        "notifications_deferred",
        "notifications",
        ["tenant", "person", "deferred_until"],
        sqlite_where=sa.text(WAITS),
        postgresql_where=sa.text(WAITS),
    )
    op.create_index(
        "notifications_merged",
        "notifications",
        ["merged_into"],
        sqlite_where=sa.text(MERGED),
        postgresql_where=sa.text(MERGED),
    )
    op.create_index("notifications_by_age", "notifications", ["created_at"])
    op.create_table(
        "budgets",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("next_slot_at", sa.BigInteger, nullable=False),
        sa.Column("blocked_until", sa.BigInteger, nullable=False),
        sa.Column("blocked_for", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
    )
