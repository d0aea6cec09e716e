"""Asks: the HTTP API, the command line, the schedules, `holdfast up`."""
