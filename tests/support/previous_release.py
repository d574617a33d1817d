"""A database as the release before this one left it: migrations 0001 and 0002, and rows as its server wrote them."""

import hashlib
import json
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from shm.db.migrations import CREATE_HISTORY, load_migrations
from tests.support.databases import admin_cursor

LAST = 2  # the newest migration of that release
TOKEN = "a-token-of-the-previous-release"
HORIZON = 3  # of its feed
ENVIRONMENTS = ("production", "production", "production", "staging", "CI", "dev")

INSTANCES = """
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        registered_at, first_seen_at, last_seen_at, snapshot_at, metrics, leaves, staged, left_slug, cursor
    ) VALUES %s
"""
SNAPSHOTS = "INSERT INTO snapshots (instance_id, snapshot_at, received_at, app_version, sequence, metrics) VALUES %s"

# Hourly snapshots of so many installs over so many days, and what the installs were left with.
LARGE = """
    INSERT INTO applications (slug, name, created_at) VALUES ('ledger', 'Ledger', now() - interval '200 days');
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        registered_at, first_seen_at, last_seen_at, cursor
    )
    SELECT
        md5('install ' || n)::uuid, decode(md5('a' || n) || md5('b' || n), 'hex'), 'active', 'ledger', 'Ledger',
        '1.' || n %% 7, 'production', 'docker', 'linux/amd64', now() - interval '200 days',
        now() - interval '200 days', now() - interval '200 days', n
    FROM generate_series(1, %(installs)s) n;
    INSERT INTO snapshots (instance_id, snapshot_at, received_at, metrics)
    SELECT
        md5('install ' || n)::uuid, moment.at, moment.at + interval '1 second',
        jsonb_build_object('orders', h, 'mail', jsonb_build_object('sent', n + h), 'beta', h %% 2 = 0, 'locale', 'fr')
    FROM generate_series(1, %(installs)s) n
    CROSS JOIN generate_series(1, %(each)s) h
    CROSS JOIN LATERAL (
        SELECT date_trunc('second', now() - (%(each)s - h) * interval '5 hours' - n * interval '1 second') AS at
    ) moment;
    UPDATE instances i SET
        snapshot_at = s.snapshot_at, last_seen_at = s.received_at, metrics = s.metrics,
        leaves = s.metrics - 'mail' || jsonb_build_object('mail.sent', s.metrics -> 'mail' -> 'sent')
    FROM (SELECT DISTINCT ON (instance_id) * FROM snapshots ORDER BY instance_id, snapshot_at DESC) s
    WHERE s.instance_id = i.instance_id;
    UPDATE feed_head SET cursor = %(installs)s;
    ANALYZE;
"""


@dataclass
class OldInstall:
    """An install as that release knew it; its snapshots are `(snapshot_at, received_at, app_version, metrics)`."""

    instance_id: str
    status: str
    app: str
    environment: str
    registered_at: datetime
    first_seen_at: datetime | None
    app_version: str = "1.0.0"
    staged: dict[str, str] | None = None
    left_slug: str | None = None
    snapshots: list[tuple[datetime, datetime, str | None, dict[str, Any]]] = field(default_factory=list)


def make(dsn: str, head: int, seed: int = 20) -> list[OldInstall]:
    """Replaces all of a database by that release's, its feed at `head`; returns who is in it."""
    chance = random.Random(seed)
    installs = _installs(chance, datetime.now(UTC).replace(microsecond=0))
    _schema(dsn)
    with admin_cursor(dsn) as cursor:
        names = {install.app for install in installs}
        execute_values(
            cursor,
            "INSERT INTO applications (slug, name, created_at) VALUES %s",
            [(name.lower(), name, datetime.now(UTC) - timedelta(days=220)) for name in names],
        )
        cursors = chance.sample(range(HORIZON + 2, head + 1), len(installs))
        execute_values(cursor, INSTANCES, [_row(*each) for each in zip(installs, cursors, strict=True)])
        snapshots = [(each.instance_id, *snapshot) for each in installs for snapshot in each.snapshots]
        rows = [
            (instance_id, at, received, version, place, json.dumps(metrics))
            for place, (instance_id, at, received, version, metrics) in enumerate(snapshots)
        ]
        execute_values(cursor, SNAPSHOTS, rows)
        cursor.execute("UPDATE feed_head SET cursor = %s, horizon = %s", [head, HORIZON])
        cursor.execute(
            "INSERT INTO removals (cursor, instance_id, app_slug) VALUES (%s, gen_random_uuid(), 'ledger')",
            [HORIZON + 1],
        )
        hashed = hashlib.sha256(TOKEN.encode()).digest()
        cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES (%s, 'admin', 'by hand')", [hashed])
    return installs


def make_large(dsn: str, installs: int, each: int) -> None:
    """The same with `each` snapshots of so many installs, one every five hours."""
    _schema(dsn)
    with admin_cursor(dsn) as cursor:
        cursor.execute(LARGE, {"installs": installs, "each": each})
        hashed = hashlib.sha256(TOKEN.encode()).digest()
        cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES (%s, 'admin', 'by hand')", [hashed])


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves that are aggregated, by dotted key."""
    leaves: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 64):
            leaves[prefix + name] = value
    return leaves


def _schema(dsn: str) -> None:
    with admin_cursor(dsn) as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        cursor.execute(CREATE_HISTORY)
        for version in range(1, LAST + 1):
            text = load_migrations()[version]
            cursor.execute(text)
            applied = (version, hashlib.sha256(text.encode()).hexdigest())
            cursor.execute("INSERT INTO schema_migrations (version, checksum) VALUES (%s, %s)", applied)


def _installs(chance: random.Random, now: datetime) -> list[OldInstall]:
    installs = []
    for number in range(48):
        app = chance.choice(["Ledger", "Ledger", "Kiosk"])
        registered = now - timedelta(days=chance.uniform(3, 200))
        install = OldInstall(
            str(uuid.UUID(int=chance.getrandbits(128))), "active", app, chance.choice(ENVIRONMENTS), registered, None
        )
        installs.append(install)
        if number % 8 == 0:  # has not proven its key yet; some have said something else since
            install.status, install.registered_at = "pending", now - timedelta(hours=chance.uniform(1, 20))
            continue
        install.first_seen_at = registered + timedelta(seconds=2)
        if number % 8 == 1:
            install.status = "revoked"
        if number % 8 == 2:
            install.staged = {"app_slug": app.lower(), "app_name": app, "app_version": "9.0.0"}
        if number % 8 == 3:
            install.left_slug = "kiosk" if app == "Ledger" else "ledger"
        if number % 12 != 5:  # those were active once, and never sent anything
            silent = timedelta(days=chance.choice([0, 0, 0, 0, 2, 12, 50, 90]))
            install.snapshots = _snapshots(chance, number, registered, now - silent)
    return installs


def _snapshots(
    chance: random.Random, number: int, since: datetime, until: datetime
) -> list[tuple[datetime, datetime, str | None, dict[str, Any]]]:
    """Some of each day's, some as a backlog days later, and one at a full hour, of which series are made."""
    length = max((until - since).total_seconds(), 60.0)
    moments = sorted({since + timedelta(seconds=int(chance.uniform(0, length))) for _ in range(25)})
    moments.append(moments[-1].replace(minute=0, second=0))
    snapshots = []
    for place, at in enumerate(dict.fromkeys(moments)):
        late = timedelta(days=chance.uniform(0.1, 9)) if place % 6 == 0 else timedelta(seconds=1)
        received = min(at + late, datetime.now(UTC))
        version = f"1.{place // 9}.0" if number % 3 else None
        snapshots.append((at, received, version, _metrics(chance, number, place)))
    return snapshots


def _metrics(chance: random.Random, number: int, place: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "orders": chance.randrange(10_000),
        "revenue": round(chance.uniform(-50, 9_999), 2),
        "mail": {"sent": place, "queue": {"length": chance.randrange(5)}},
        "beta": chance.random() < 0.5,
        "locale": chance.choice(["fr", "de", "en"]),
        "motto": "x" * 200,
        "nodes": [1, None, {"a": 2}],
        "nothing": None,
        "sys_cpu_cores": chance.choice([2, 4, 8]),
    }
    if number % 7 == 4:
        metrics["sys_ephemeral"] = True
    if number % 4 == 1:  # nothing but leaves, as most installs send
        metrics = flat(metrics)
    if place % 5 == 0:
        del metrics["orders"]
    return metrics


def _row(install: OldInstall, cursor: int) -> tuple[object, ...]:
    newest = max(install.snapshots, key=lambda snapshot: snapshot[0], default=None)
    seen = [received for _, received, *_ in install.snapshots] + [install.first_seen_at or install.registered_at]
    metrics = newest[3] if newest else {}
    if newest and newest[2]:
        install.app_version = newest[2]
    return (
        *(install.instance_id, psycopg2.Binary(bytes(32)), install.status, install.app.lower(), install.app),
        *(install.app_version, install.environment, "docker", "linux/amd64", install.registered_at),
        *(install.first_seen_at, None if install.first_seen_at is None else max(seen), newest[0] if newest else None),
        *(json.dumps(metrics), json.dumps(flat(metrics))),
        *(None if install.staged is None else json.dumps(install.staged), install.left_slug, cursor),
    )
