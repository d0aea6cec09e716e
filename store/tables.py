"""The tables. `MAIN` and `LEDGER` are two SQLite files, or one PostgreSQL database.

Times are UTC integer microseconds. A content's reference count is the number of its files, never a column.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
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
WAITS = "deferred_until IS NOT NULL AND woke_at IS NULL AND merged_into IS NULL"
MERGED = "merged_into IS NOT NULL"
LIVE_CHILD = "parent_id IS NOT NULL AND deleted_at IS NULL"

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

people = Table(
    "people",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("locale", Text),
    Column("zone", Text),
    Column("quiet_start", Text),
    Column("quiet_end", Text),
    Column("updated_at", BigInteger, nullable=False),
)

targets = Table(
    "targets",
    MAIN,
    Column("target_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("person", Text),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "channel", "address", name="targets_once"),
    Index("targets_by_person", "tenant", "person"),
)

preferences = Table(
    "preferences",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("allowed", Boolean, nullable=False),
)

suppressions = Table(
    "suppressions",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("dead_since", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Index("suppressions_by_reason", "channel", "reason", "created_at"),
)

notifications = Table(
    "notifications",
    MAIN,
    Column("notification_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("person", Text),
    Column("target_id", Text),
    Column("category", Text, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("routes", JSON, nullable=False),
    Column("every", Boolean, nullable=False),
    Column("resend", Boolean, nullable=False),
    Column("template", Text),
    Column("content", JSON),
    Column("data", JSON, nullable=False),
    Column("attachments", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("deferred_until", BigInteger),
    Column("woke_at", BigInteger),
    Column("merged_into", Text),
    Index(
        "notifications_deferred",
        "tenant",
        "person",
        "deferred_until",
        sqlite_where=text(WAITS),
        postgresql_where=text(WAITS),
    ),
    Index(
        "notifications_merged",
        "merged_into",
        sqlite_where=text(MERGED),
        postgresql_where=text(MERGED),
    ),
    Index("notifications_by_age", "created_at"),
)

recipient_sets = Table(
    "recipient_sets",
    MAIN,
    Column("set_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("total", Integer),
    Column("report", JSON),
    Column("created_at", BigInteger, nullable=False),
)

recipients = Table(
    "recipients",
    MAIN,
    Column("set_id", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("who", Text, nullable=False),
    Column("person", Text),
    Column("target_id", Text),
    Column("data", JSON),
    UniqueConstraint("set_id", "who", name="recipients_once"),
)

audiences = Table(
    "audiences",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("set_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

broadcasts = Table(
    "broadcasts",
    MAIN,
    Column("broadcast_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("set_id", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("category", Text, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("routes", JSON, nullable=False),
    Column("every", Boolean, nullable=False),
    Column("resend", Boolean, nullable=False),
    Column("template", Text),
    Column("content", JSON),
    Column("data", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("paused", Text),
)

broadcast_chunks = Table(
    "broadcast_chunks",
    MAIN,
    Column("broadcast_id", Text, primary_key=True),
    Column("first_line", Integer, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("recipients", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
)

events = Table(
    "events",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text),
    Column("url", Text),
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Index("events_by_person", "tenant", "person", "received_at"),
    Index("events_by_age", "tenant", "received_at"),
)

digest_settings = Table(
    "digest_settings",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("zone", Text, nullable=False),
    Column("at", Text, nullable=False),
)

digests = Table(
    "digests",
    MAIN,
    Column("tenant", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("until", BigInteger, nullable=False),
    Column("broadcast_id", Text),
    Column("people", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    MAIN,
    Column("scope", Text, primary_key=True),
    Column("next_slot_at", BigInteger, nullable=False),
    Column("blocked_until", BigInteger, nullable=False),
    Column("blocked_for", Text),
    Column("detail", Text),
    Column("failures", Integer, nullable=False),
    Column("pace", BigInteger),
    Column("pace_until", BigInteger),
    Column("call_limit", Integer),
    Column("per", BigInteger),
    Column("aligned", Boolean),
    Column("window_started_at", BigInteger),
    Column("used", Integer, nullable=False, server_default="0"),
    Column("last_used_at", BigInteger),
)

connections = Table(
    "connections",
    MAIN,
    Column("connection_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("credentials", Text, nullable=False),
    Column("credentials_version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("frozen_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("last_synced_at", BigInteger),
    Column("last_job_id", Text),
    UniqueConstraint("tenant", "provider", "account", name="connections_once"),
    Index("connections_by_provider", "provider", "state"),
)

sync_places = Table(
    "sync_places",
    MAIN,
    Column("connection_id", Text, primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("place", JSON, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# Parents whose children a pass left out, so that the next one asks for all of them.
sync_left_out = Table(
    "sync_left_out",
    MAIN,
    Column("connection_id", Text, primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("parent_id", Text, primary_key=True),
)

# No index has seen_pass: every row's changes in every full pass.
synced_rows = Table(
    "synced_rows",
    MAIN,
    Column("connection_id", Text, primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("row_id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("content_hash", Text, nullable=False),
    Column("vendor_updated_at", Text),
    Column("data", JSON, nullable=False),
    Column("seen_pass", Text),
    Column("deleted_at", BigInteger),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Index(
        "synced_rows_by_parent",
        "connection_id",
        "resource",
        "parent_id",
        sqlite_where=text(LIVE_CHILD),
        postgresql_where=text(LIVE_CHILD),
    ),
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
    Column("owner", Text),
    Column("taken_at", BigInteger),
    Index("effects_by_age", "claimed_at"),
)
