"""The tables. `MAIN` and `LEDGER` are two SQLite files, or one PostgreSQL database.

Times are UTC integer microseconds. A content's reference count is the number of its files, never a column.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

MAIN = MetaData()
LEDGER = MetaData()

OPEN_STATES = "state IN ('submitted', 'running', 'parked')"

jobs = Table(
    "jobs",
    MAIN,
    Column("job_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("person", Text),
    Column("type", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("first_run_id", Text),
    Column("state", Text, nullable=False),
    Column("cause", Text),
    Column("error", Text),
    Column("stage", Text),
    Column("progress_done", Integer, nullable=False, server_default="0"),
    Column("progress_total", Integer, nullable=False, server_default="0"),
    Column("progress_unit", Text),
    Column("result", JSON),
    Column("trace_id", Text),
    Column("submitted_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Index(
        "jobs_one_open", "workflow_id", unique=True, sqlite_where=text(OPEN_STATES), postgresql_where=text(OPEN_STATES)
    ),
    Index("jobs_by_workflow", "workflow_id", "submitted_at"),
    Index("jobs_by_tenant", "tenant", "submitted_at", "job_id"),
    Index("jobs_by_type", "type", "submitted_at"),
    Index("jobs_by_state", "state", "submitted_at"),
)

submissions = Table(
    "submissions",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("resource_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("submissions_by_age", "created_at"),
)

contents = Table(
    "contents",
    MAIN,
    Column("content_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("pipeline_version", Integer, nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", Text),
    Column("pages", Integer),
    Column("width", Integer),
    Column("height", Integer),
    Column("ready_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "sha256", "pipeline_version", name="contents_once"),
)

files = Table(
    "files",
    MAIN,
    Column("file_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("person", Text),
    Column("content_id", Text, ForeignKey("contents.content_id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("uploaded_at", BigInteger, nullable=False),
    Index("files_by_content", "content_id"),
    Index("files_by_tenant", "tenant", "uploaded_at"),
)

thumbnails = Table(
    "thumbnails",
    MAIN,
    Column("content_id", Text, ForeignKey("contents.content_id"), primary_key=True),
    Column("size_px", Integer, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

pages = Table(
    "pages",
    MAIN,
    Column("content_id", Text, ForeignKey("contents.content_id"), primary_key=True),
    Column("page", Integer, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("words", JSON, nullable=False),
)

api_keys = Table(
    "api_keys",
    MAIN,
    Column("key_id", Text, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

effects = Table(
    "effects",
    LEDGER,
    Column("first_run_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("outcome", JSON),
    Column("claimed_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Index("effects_by_age", "claimed_at"),
)
