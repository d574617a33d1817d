"""Instances and a fixed clock for tests of the console without a server."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shm.core.releases import version_rank
from shm_client import Instance
from shm_tui.model.row import Row
from shm_tui.model.state import Clock
from shm_tui.text.formatting import DAY

# No deadline, because the machine may be busy. More examples find faults that need several steps in a row.

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCK = Clock(NOW, 30 * DAY)


def ago(seconds: float) -> datetime:
    """The time this many seconds before NOW."""
    return NOW - timedelta(seconds=seconds)


def instance(name: str = "a", seen: float | None = 60, **more: Any) -> Instance:
    """An active, counted instance, last seen `seen` seconds ago, with the server's rank of its version."""
    last_seen = None if seen is None else ago(seen)
    defaults: dict[str, Any] = {"instance_id": name, "status": "active", "counted": True, "last_seen_at": last_seen}
    defaults["version_rank"] = version_rank(more.get("app_version", ""))
    return Instance(**defaults | more)


def row(name: str = "a", seen: float | None = 60, **more: Any) -> Row:
    """A row of such an instance."""
    return Row(instance(name, seen, **more))
