"""`make demo`: the main jobs on files that look like real ones."""
