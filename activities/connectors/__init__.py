"""Third-party APIs that are synced: spec.py has the words, engine.py acts on them, and a module each is one vendor."""
