"""Does: one class per job, its collaborators injected by worker.py."""
