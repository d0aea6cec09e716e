"""Public ids: UUIDv7, so that they sort by time (https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7)."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A new one."""
    return uuid7()
