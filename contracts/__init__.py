"""What crosses a process: payloads, the catalogue of guarantees, errors. Imports nothing of ours."""
