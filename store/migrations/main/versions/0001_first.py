"""Jobs, submissions, files and what is read from them, API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001_first"
down_revision = None
branch_labels = None
depends_on = None

OPEN_STATES = "state IN ('submitted', 'running', 'parked')"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("first_run_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("progress_done", sa.Integer, nullable=False, server_default="0"),
        sa.Column("progress_total", sa.Integer, nullable=False, server_default="0"),
        sa.Column("progress_unit", sa.Text),
        sa.Column("result", sa.JSON),
        sa.Column("trace_id", sa.Text),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
    )
    op.create_index(
        "jobs_one_open",
        "jobs",
        ["workflow_id"],
        unique=True,
        sqlite_where=sa.text(OPEN_STATES),
        postgresql_where=sa.text(OPEN_STATES),
    )
    op.create_index("jobs_by_workflow", "jobs", ["workflow_id", "submitted_at"])
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "submitted_at", "job_id"])
    op.create_index("jobs_by_type", "jobs", ["type", "submitted_at"])
    op.create_index("jobs_by_state", "jobs", ["state", "submitted_at"])
    op.create_table(
        "submissions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("submissions_by_age", "submissions", ["created_at"])
    op.create_table(
        "contents",
        sa.Column("content_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("pipeline_version", sa.Integer, nullable=False),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.Text),
        sa.Column("pages", sa.Integer),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("ready_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("tenant", "sha256", "pipeline_version", name="contents_once"),
    )
    op.create_table(
        "files",
        sa.Column("file_id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("content_id", sa.Text, sa.ForeignKey("contents.content_id"), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("uploaded_at", sa.BigInteger, nullable=False),
    )
    op.create_index("files_by_content", "files", ["content_id"])
    op.create_index("files_by_tenant", "files", ["tenant", "uploaded_at"])
    op.create_table(
        "thumbnails",
        sa.Column("content_id", sa.Text, sa.ForeignKey("contents.content_id"), primary_key=True),
        sa.Column("size_px", sa.Integer, primary_key=True),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "pages",
        sa.Column("content_id", sa.Text, sa.ForeignKey("contents.content_id"), primary_key=True),
        sa.Column("page", sa.Integer, primary_key=True),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("words", sa.JSON, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False, unique=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE page_text USING fts5(text, content_id UNINDEXED, page UNINDEXED, tenant UNINDEXED, "
            "tokenize = 'unicode61 remove_diacritics 2')"
        )
    else:
        op.execute(
            "CREATE TABLE page_text (content_id text NOT NULL, page integer NOT NULL, tenant text NOT NULL, "
            "text text NOT NULL, found tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED, "
            "PRIMARY KEY (content_id, page))"
        )
        op.execute("CREATE INDEX page_text_found ON page_text USING gin (found)")
