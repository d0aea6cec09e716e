"""Who holds a claim, and since when."""

import sqlalchemy as sa
from alembic import op

revision = "0002_owner"
down_revision = "0001_effects"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; a claim of before has no owner."""
    op.add_column("effects", sa.Column("owner", sa.Text))
    op.add_column("effects", sa.Column("taken_at", sa.BigInteger))
