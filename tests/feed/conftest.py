"""Watchers of a bustle, and what they are held to when it is over."""

import os
import secrets

import pytest


@pytest.fixture
def seed() -> int:
    """What decides about whatever happens; a failed test shows how to have the same again."""
    chosen = int(os.environ.get("FEED_SEED") or secrets.randbits(32))
    print(f"repeat it with FEED_SEED={chosen}")
    return chosen
