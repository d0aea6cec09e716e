"""Runs: settings, the Temporal client and converter, clock, telemetry, the embedded server, the CPU pool."""
