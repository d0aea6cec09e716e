"""Names of tenants: they stand in workflow ids, blob keys and fairness keys."""

import re

ALL_TENANTS = "*"  # of an API key
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # 64 is Temporal's limit of a fairness key, in bytes


def checked_tenant(name: str) -> str:
    """The name.

    Raises:
        ValueError: it is empty, longer than 64 characters, or has others than letters, digits and `_.-`.
    """
    if not TENANT.fullmatch(name):
        raise ValueError(f"a tenant is 1 to 64 letters, digits, `_`, `.` or `-`, the first no sign; not {name!r}")
    return name
