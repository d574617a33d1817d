"""Fleets with their history, written by SQL into a database that no server uses: a million installs in minutes.

What they hold is what the product's statements would have left; a test compares. `seeded_fleet.sql` says how.
"""

import json
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from bench.support.fleet import METRICS
from shm.queries import with_parts

FILE = Path(__file__).parent / "seeded_fleet.sql"
STEP = re.compile(r"^-- step: ([a-z_]+)$", re.MULTILINE)
FORMS = 40  # of what the installs of an application send
IN_ORDER = (
    *("prepare", "forms", "installs", "aside", "fleet", "tallies", "runs", "snapshots", "versions"),
    *("hours", "days", "years", "indexes", "tidy"),
)
SHARES = {"ephemeral": 0.02, "beta": 0.3}

# Each sends its own metrics beside those that the clients add; the first one nests some.
APPLICATIONS = {
    "Ledger": ("invoices_paid", "revenue_eur", "users_active", "users_total", "projects_open", "projects_archived"),
    "Atlas": ("maps_drawn", "tiles_served", "users_active", "layers", "exports_done", "markers_set"),
    "Courier": ("parcels", "routes_planned", "drivers_active", "depots", "kilometres", "returns_open"),
}
CATEGORIES = {
    "locale": ("de", "en", "fr", "es", "it", "ja", "nl", "pl", "pt", "sv"),
    "theme": ("high-contrast", "light", "dark"),
    "database": ("postgresql-15", "postgresql-16", "postgresql-17", "sqlite-3", "mariadb-11"),
    "plan": tuple(f"plan-{number:02}" for number in range(30)),
    "sys_os": ("linux", "windows", "darwin"),
    "sys_arch": ("amd64", "arm64"),
    "sys_mode": ("docker", "binary"),
}


@dataclass(frozen=True, slots=True)
class Estate:
    """How many installs, and how many snapshots of each over its newest 30 days."""

    installs: int
    snapshots: int

    @property
    def named(self) -> str:
        """`10,000 x 30`."""
        return f"{self.installs:,} x {self.snapshots}"


def seed(dsn: str, estate: Estate) -> dict[str, float]:
    """Writes it into a migrated, empty database; seconds by step."""
    took: dict[str, float] = {}
    parameters: dict[str, object] = {
        "forms": json.dumps(list(_forms(random.Random(1)))),
        "forms_each": FORMS,
        "installs": estate.installs,
        "snapshots": estate.snapshots,
    }
    with connected(dsn) as cursor:
        for name in IN_ORDER:
            began = time.monotonic()
            run_step(cursor, name, parameters)
            took[name] = time.monotonic() - began
    return took


def another_day(dsn: str) -> int:
    """Stores what active installs send in a day, hour by hour, and rolls nothing up; how many snapshots that is."""
    with connected(dsn) as cursor:
        run_step(cursor, "another_day", {})
        cursor.execute("SELECT (SELECT cursor FROM feed_head) - (SELECT cursor FROM series_head)")
        (stored,) = cursor.fetchone()
        return int(stored)


def hang_up(dsn: str) -> None:
    """Ends whatever is being written there: whoever waits for it cannot wait for minutes."""
    with connected(dsn) as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """A cursor of a connection in autocommit."""
    connection = psycopg2.connect(dsn, options="-c timezone=UTC")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def run_step(cursor: Any, name: str, parameters: dict[str, object]) -> None:
    """Runs a step of `seeded_fleet.sql`, its statements one by one."""
    for statement in re.split(r";$", _steps()[name], flags=re.MULTILINE):
        if re.sub(r"--.*", "", statement).strip():
            cursor.execute(statement, parameters)


def _steps() -> dict[str, str]:
    _, *parts = STEP.split(FILE.read_text(encoding="utf-8"))
    return {name: with_parts(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _forms(chance: random.Random) -> Iterator[dict[str, object]]:
    for name, keys in APPLICATIONS.items():
        for _ in range(FORMS):
            yield {"slug": name.lower(), "name": name, "metrics": _metrics(keys, chance, nested=name == "Ledger")}


def _metrics(keys: tuple[str, ...], chance: random.Random, *, nested: bool) -> dict[str, object]:
    """Twenty-odd, as of `bench.fleet`, most of them different each time."""
    said: dict[str, object] = {key: value for key, value in METRICS.items() if key.startswith(("sys_", "app_"))}
    said |= {key: chance.choice(values) for key, values in CATEGORIES.items()}
    said |= {key: int(chance.lognormvariate(5, 2)) for key in keys}
    said |= {
        "app_mem_alloc_mb": round(chance.uniform(40, 400), 2),
        "app_uptime_h": round(chance.uniform(0, 900), 1),
        "storage_used_percent": round(chance.uniform(1, 99), 1),
        "beta": chance.random() < SHARES["beta"],
        "single_sign_on": chance.random() < SHARES["beta"],
    }
    mail = {"sent": chance.randrange(10_000), "bounced": chance.randrange(100), "queue_seconds": 0.42}
    said |= {"mail": mail} if nested else {f"mail_{key}": value for key, value in mail.items()}
    return said | ({"sys_ephemeral": True} if chance.random() < SHARES["ephemeral"] else {})
