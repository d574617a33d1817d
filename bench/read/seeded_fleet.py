"""Fleets with their history, inserted by SQL into a database without a server: a million installs in minutes.

The rows equal those that the server would have written, which a test checks. The SQL is in `seeded_fleet.sql`.
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
from shm.core.releases import version_rank
from shm.db.statements import expand_parts

SQL_FILE = Path(__file__).parent / "seeded_fleet.sql"
STEP_HEADER = re.compile(r"^-- step: ([a-z_]+)$", re.MULTILINE)
VARIANTS_PER_APP = 40  # different metrics objects that the installs of an application send
STEPS = (
    *("prepare", "variants", "installs", "drop_indexes", "instances", "tallies", "intervals", "snapshots", "versions"),
    *("hours", "days", "years", "create_indexes", "clean_up"),
)
VERSIONS = [f"2.{minor}.0" for minor in range(12)]
SHARES = {"ephemeral": 0.02, "beta": 0.3}

# Each application sends its own metrics and those that clients add; the first one nests some.
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
class SeededFleet:
    """The number of installs, and of the snapshots of each over its newest 30 days.

    With `dsn` it is on a coordinator of Citus.
    """

    installs: int
    snapshots: int
    dsn: str = ""

    @property
    def name(self) -> str:
        """`10,000 x 30`, and where it is, if not on one PostgreSQL."""
        return f"{self.installs:,} x {self.snapshots}{' on the coordinator' if self.dsn else ''}"


def seed_fleet(dsn: str, fleet: SeededFleet) -> dict[str, float]:
    """Inserts it into a migrated, empty database; returns the seconds of each step."""
    durations: dict[str, float] = {}
    parameters: dict[str, object] = {
        "variants": json.dumps(list(_variants(random.Random(1)))),
        "variants_per_app": VARIANTS_PER_APP,
        "version_ranks": json.dumps({version: version_rank(version) for version in VERSIONS}),
        "installs": fleet.installs,
        "snapshots": fleet.snapshots,
    }
    with open_cursor(dsn) as cursor:
        for name in STEPS:
            started = time.monotonic()
            run_step(cursor, name, parameters)
            durations[name] = time.monotonic() - started
    return durations


def add_day(dsn: str) -> int:
    """Inserts hourly snapshots of one day for each active install without a rollup; returns their number."""
    with open_cursor(dsn) as cursor:
        run_step(cursor, "add_day", {})
        cursor.execute("SELECT (SELECT cursor FROM feed_head) - (SELECT cursor FROM series_head)")
        (stored,) = cursor.fetchone()
        return int(stored)


def terminate_backends(dsn: str) -> None:
    """Ends the statements that run there, so that a cancelled bench ends at once."""
    with open_cursor(dsn) as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


@contextmanager
def open_cursor(dsn: str) -> Iterator[Any]:
    """The cursor of a connection in autocommit mode."""
    connection = psycopg2.connect(dsn, options="-c timezone=UTC")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def run_step(cursor: Any, name: str, parameters: dict[str, object]) -> None:
    """Runs a step of `seeded_fleet.sql`, one statement at a time."""
    for statement in re.split(r";$", _steps()[name], flags=re.MULTILINE):
        if re.sub(r"--.*", "", statement).strip():
            cursor.execute(statement, parameters)


def _steps() -> dict[str, str]:
    _, *parts = STEP_HEADER.split(SQL_FILE.read_text(encoding="utf-8"))
    return {name: expand_parts(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _variants(rng: random.Random) -> Iterator[dict[str, object]]:
    for name, keys in APPLICATIONS.items():
        for _ in range(VARIANTS_PER_APP):
            yield {"slug": name.lower(), "name": name, "metrics": _metrics(keys, rng, nested=name == "Ledger")}


def _metrics(keys: tuple[str, ...], rng: random.Random, *, nested: bool) -> dict[str, object]:
    """Some twenty metrics like those of `bench.support.fleet`, most values at random."""
    metrics: dict[str, object] = {key: value for key, value in METRICS.items() if key.startswith(("sys_", "app_"))}
    metrics |= {key: rng.choice(values) for key, values in CATEGORIES.items()}
    metrics |= {key: int(rng.lognormvariate(5, 2)) for key in keys}
    metrics |= {
        "app_mem_alloc_mb": round(rng.uniform(40, 400), 2),
        "app_uptime_h": round(rng.uniform(0, 900), 1),
        "storage_used_percent": round(rng.uniform(1, 99), 1),
        "beta": rng.random() < SHARES["beta"],
        "single_sign_on": rng.random() < SHARES["beta"],
    }
    mail = {"sent": rng.randrange(10_000), "bounced": rng.randrange(100), "queue_seconds": 0.42}
    metrics |= {"mail": mail} if nested else {f"mail_{key}": value for key, value in mail.items()}
    return metrics | ({"sys_ephemeral": True} if rng.random() < SHARES["ephemeral"] else {})
