"""The seed of the feed's random tests."""

import os
import secrets

import pytest


@pytest.fixture
def seed() -> int:
    """The seed of all random choices. A failed test prints it, so that the run can be repeated."""
    value = int(os.environ.get("FEED_SEED") or secrets.randbits(32))
    print(f"to repeat this run: FEED_SEED={value}")
    return value
