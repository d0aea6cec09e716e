"""SQLite: find a content's rows in page_text by MATCH; an FTS5 table has no other index than that of its text.

https://sqlite.org/fts5.html#the_unindexed_column_option
"""

from alembic import op

revision = "0002_page_text_by_content"
down_revision = "0001_first"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table again with `content_id` indexed, and move the rows."""
    if op.get_bind().dialect.name != "sqlite":
        return  # its primary key does it
    op.execute(
        "CREATE VIRTUAL TABLE page_text_new USING fts5(text, content_id, page UNINDEXED, tenant UNINDEXED, "
        "tokenize = 'unicode61 remove_diacritics 2')"
    )
    op.execute(
        "INSERT INTO page_text_new (text, content_id, page, tenant) "
        "SELECT text, content_id, page, tenant FROM page_text"
    )
    op.execute("DROP TABLE page_text")
    op.execute("ALTER TABLE page_text_new RENAME TO page_text")
