"""Keeps: tables and queries, migrations, blobs. Knows nothing of Temporal beyond ids."""
