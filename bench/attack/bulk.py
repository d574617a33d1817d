"""Work on many instances or snapshots at once, which admins and the server itself begin. Each prepares it first."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg2

from bench.attack.attacks import Attack, Attacker, request_as_admin
from bench.support.errors import InvalidRun
from bench.support.processes import CHECKOUT
from bench.support.server import RunningServer
from shm.core.errors import DatabaseUnavailable
from shm.core.settings import Settings
from shm.db import partitions
from shm.db.database import Database

POLL_INTERVAL_S = 0.5
TIMEOUT_S = 1_200.0

APP_INSTALLS = 20  # of an application, each with a backlog of the largest snapshots
UNPROVEN = 20_000  # twenty pages of the purge
DIFFERING = 1_000  # instances, each with as many keys as a snapshot may have
EXPIRED_ROWS = 200_000
DROP_RETRY_S = 1.0  # a server waits for half a minute

# Registrations without a signed request, which are due.
INSERT_UNPROVEN = """
WITH head AS (UPDATE feed_head SET cursor = cursor + %(rows)s RETURNING cursor - %(rows)s AS cursor),
counted AS (
    INSERT INTO tallies AS t (
        app_slug, metric_type, key, value, total, instances, counted_total, counted_instances
    )
    VALUES ('unproven', 'status', 'unproven', '0', 0, %(rows)s, 0, %(rows)s)
    ON CONFLICT (app_slug, metric_type, key, value) DO UPDATE SET
        instances = t.instances + %(rows)s, counted_instances = t.counted_instances + %(rows)s
)
INSERT INTO instances (
    instance_id, public_key, app_slug, app_name, app_version, environment, deployment_mode, os_arch, registered_at,
    cursor
)
SELECT
    gen_random_uuid(), sha256(number::text::bytea), 'unproven', 'Unproven', '1.0', '', '', '',
    now() - interval '2 days', head.cursor + number
FROM generate_series(1, %(rows)s) number, head"""

# A week that is past its retention. The partition of a new database, which covers all of the past, begins after it.
CREATE_EXPIRED_WEEK = """
DO $$
DECLARE
    since timestamptz := date_trunc('week', now() - interval '200 days', 'UTC');
    until text;
BEGIN
    SELECT (regexp_match(pg_get_expr(relpartbound, oid), 'TO \\(''([^'']+)''\\)'))[1] INTO until
    FROM pg_class WHERE oid = 'snapshots_first'::regclass;
    ALTER TABLE snapshots DETACH PARTITION snapshots_first;
    EXECUTE format(
        'ALTER TABLE snapshots ATTACH PARTITION snapshots_first FOR VALUES FROM (%L) TO (%L)',
        since + interval '7 days', until
    );
    EXECUTE format(
        'CREATE TABLE snapshots_expired PARTITION OF snapshots FOR VALUES FROM (%L) TO (%L)',
        since, since + interval '7 days'
    );
END $$"""
INSERT_EXPIRED = """
INSERT INTO snapshots (instance_id, snapshot_at, app_version, metrics, app_slug, cursor)
SELECT
    gen_random_uuid(), date_trunc('week', now() - interval '200 days', 'UTC') + interval '1 day', '1.0', '{"n": 1}',
    'expired', 0
FROM generate_series(1, %(rows)s)"""


def delete_application(server: RunningServer) -> Attack:
    """An admin deletes an application whose installs have sent as many keys as they may."""
    for _ in range(APP_INSTALLS):
        Attacker.register(server, "deleted").send_all_keys()

    def delete() -> None:
        request_as_admin(server, "DELETE", "applications/deleted")
        _wait_for_bulk_changes(server)

    return delete


def merge_applications(server: RunningServer) -> Attack:
    """An admin merges an application into another one, whose installs send the same keys."""
    for app in ["merged"] * APP_INSTALLS + ["merged into"]:
        Attacker.register(server, app).send_all_keys()

    def merge() -> None:
        request_as_admin(server, "POST", "applications/merged/merge", b'{"into": "merged-into"}')
        _wait_for_bulk_changes(server)

    return merge


def purge_unproven(server: RunningServer) -> Attack:
    """The server deletes instances that never signed a request."""
    _execute(server, INSERT_UNPROVEN, rows=UNPROVEN)

    remaining = "SELECT count(*) FROM instances WHERE app_slug = 'unproven'"
    return lambda: _wait_until(lambda: server.fetch_value(remaining) == "0", "The unproven instances were not deleted")


def repair(server: RunningServer) -> Attack:
    """`shm check --repair` corrects instances with many keys, whose current snapshots have been lost."""
    for _ in range(DIFFERING):
        attacker = Attacker.register(server, "differing")
        attacker.send_most_keys()
        attacker.connection.close()
    _execute(server, "UPDATE instances SET metrics = '{}', leaves = NULL WHERE app_slug = 'differing'")

    def check() -> None:
        command = [sys.executable, "-m", "shm.cli", "check", "--repair"]
        environment = os.environ | {"SHM_DB_DSN": server.dsn}
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0 or "repaired instances" not in done.stdout:
            raise InvalidRun(f"shm check --repair ended with status {done.returncode}: {done.stdout} {done.stderr}")

    return check


def drop_week(server: RunningServer) -> Attack:
    """A week of raw snapshots is past its retention."""
    _execute(server, CREATE_EXPIRED_WEEK)
    _execute(server, INSERT_EXPIRED, rows=EXPIRED_ROWS)
    settings = Settings()

    async def drop() -> None:
        deadline = time.monotonic() + TIMEOUT_S
        async with Database.connect(settings, server.dsn, size=1) as database:
            while True:
                try:
                    await partitions.drop_expired(database, settings.retention)
                except DatabaseUnavailable:  # the lock is not free within a tenth of a second
                    if time.monotonic() > deadline:
                        raise InvalidRun(f"The week was not dropped within {TIMEOUT_S:.0f} s.") from None
                    await asyncio.sleep(DROP_RETRY_S)
                else:
                    return

    return lambda: asyncio.run(drop())


def _wait_for_bulk_changes(server: RunningServer) -> None:
    def is_complete() -> bool:
        return all(each["finished_at"] for each in json.loads(request_as_admin(server, "GET", "bulk-changes")))

    _wait_until(is_complete, "A change of many instances was not complete")


def _wait_until(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise InvalidRun(f"{failure} within {TIMEOUT_S:.0f} s.")
        time.sleep(POLL_INTERVAL_S)


def _execute(server: RunningServer, sql: str, **parameters: object) -> None:
    with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
    connection.close()
