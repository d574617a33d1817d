"""The oracle's input: the rows of snapshots, of instances without derived columns, and of applications."""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg2

INSTANCES = """
    SELECT instance_id::text, status, app_slug, app_version, environment, deployment_mode, os_arch, first_seen_at,
        last_seen_at, revoked_at
    FROM instances
"""
SNAPSHOTS = "SELECT instance_id::text, snapshot_at, app_slug, app_version, metrics::text FROM snapshots ORDER BY 1, 2"
APPLICATIONS = "SELECT slug, name, created_at, overrides::text FROM applications"

MAX_CATEGORY_LENGTH = 64

Leaf = Decimal | bool | str


@dataclass(frozen=True)
class Instance:
    """The current state of an instance without its metrics."""

    instance_id: str
    status: str
    app_slug: str
    app_version: str
    environment: str
    deployment_mode: str
    os_arch: str
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Snapshot:
    """A snapshot. `leaves` are its aggregated values by dotted key."""

    instance_id: str
    snapshot_at: datetime
    app_slug: str
    app_version: str
    leaves: dict[str, Leaf]


@dataclass(frozen=True)
class Application:
    """An application with its overrides."""

    slug: str
    name: str
    created_at: datetime
    overrides: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Raw:
    """All rows at one time. Snapshots are listed by instance, oldest first."""

    instances: dict[str, Instance]
    snapshots: dict[str, list[Snapshot]]
    applications: dict[str, Application]


def read_raw(database: str) -> Raw:
    """Reads all rows in one transaction."""
    connection = psycopg2.connect(database)
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(INSTANCES)
            instances = [Instance(*row) for row in cursor.fetchall()]
            cursor.execute(SNAPSHOTS)
            snapshots = [Snapshot(*(*row[:-1], leaves_of(row[-1]))) for row in cursor.fetchall()]
            cursor.execute(APPLICATIONS)
            applications = [Application(*(*row[:-1], json.loads(row[-1]))) for row in cursor.fetchall()]
    finally:
        connection.close()
    by_instance: dict[str, list[Snapshot]] = {instance.instance_id: [] for instance in instances}
    for snapshot in snapshots:
        by_instance[snapshot.instance_id].append(snapshot)
    return Raw(
        {instance.instance_id: instance for instance in instances},
        by_instance,
        {application.slug: application for application in applications},
    )


def leaves_of(metrics: str) -> dict[str, Leaf]:
    """The aggregated values of a metrics object in JSON."""
    decoded = json.loads(metrics, parse_int=Decimal, parse_float=Decimal)
    return {key: value for key, value in flat(decoded) if _is_aggregated(value)}


def flat(metrics: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """All leaves with their dotted keys."""
    pairs: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def _is_aggregated(value: Any) -> bool:
    return isinstance(value, bool | Decimal) or (isinstance(value, str) and len(value) <= MAX_CATEGORY_LENGTH)
