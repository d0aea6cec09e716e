"""Effects, in a history of their own because SQLite keeps them in a file of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0001_effects"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "effects",
        sa.Column("first_run_id", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("outcome", sa.JSON),
        sa.Column("claimed_at", sa.BigInteger, nullable=False),
        sa.Column("settled_at", sa.BigInteger),
    )
    op.create_index("effects_by_age", "effects", ["claimed_at"])
