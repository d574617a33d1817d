"""Instances for tests that need no server: plain values, and a moment to look at them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings

from shm.core.releases import version_rank
from shm_client import Instance
from shm_tui.model.row import Row
from shm_tui.model.state import Clock
from shm_tui.text.formatting import DAY

# A busy machine is no failure; and a fault that needs a few steps in a row is found.
no_deadline = settings(deadline=None)
many_examples = settings(deadline=None, max_examples=400)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCK = Clock(NOW, 30 * DAY)


def ago(seconds: float) -> datetime:
    """The moment so long before NOW."""
    return NOW - timedelta(seconds=seconds)


def instance(name: str = "a", seen: float | None = 60, **more: Any) -> Instance:
    """An active, counted instance, last seen `seen` seconds ago, with the rank that the server gives to its version."""
    last_seen = None if seen is None else ago(seen)
    usual: dict[str, Any] = {"instance_id": name, "status": "active", "counted": True, "last_seen_at": last_seen}
    usual["version_rank"] = version_rank(more.get("app_version", ""))
    return Instance(**usual | more)


def row(name: str = "a", seen: float | None = 60, **more: Any) -> Row:
    """The same as a row."""
    return Row(instance(name, seen, **more))
