"""Decides: one module per job type, no I/O, no settings, no vendor names."""
