"""Processes killed and third parties away, for real. The longest run with `make drills` only."""

import os

import pytest

long = pytest.mark.skipif("HOLDFAST_DRILLS" not in os.environ, reason="a long one: `make drills`")
