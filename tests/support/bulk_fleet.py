"""Large fleets, inserted directly into the database because sending them takes too long."""

import json
from collections.abc import Sequence
from typing import Any

from tests.support.databases import admin_cursor

INSERT_INSTANCES = """
    WITH feed_advanced AS (
        UPDATE feed_head SET cursor = cursor + %(count)s RETURNING cursor - %(count)s AS cursor
    )
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        first_seen_at, last_seen_at, snapshot_at, metrics, cursor
    )
    SELECT
        gen_random_uuid(), sha256(n::text::bytea), 'active', 'ledger', 'Ledger', '1.' || n %% 7, 'production', 'docker',
        'linux/amd64', now(), now() - n * interval '1 second', now(),
        jsonb_build_object('n', n) || (
            SELECT coalesce(jsonb_object_agg('t' || t, repeat(md5((n * t)::text), 32)), '{}')
            FROM generate_series(1, %(texts)s) t
        ),
        feed_advanced.cursor + n
    FROM generate_series(1, %(count)s) n
    CROSS JOIN feed_advanced
"""


def insert_fleet(database: str, count: int, texts: int = 0) -> None:
    """Inserts `count` instances, each with a distinct metric `n` and `texts` texts of 1 KiB."""
    with admin_cursor(database) as cursor:
        cursor.execute(INSERT_INSTANCES, {"count": count, "texts": texts})
        cursor.execute("ANALYZE instances")


INSERT_METRICS = """
    WITH feed_advanced AS (
        UPDATE feed_head SET cursor = cursor + %(count)s RETURNING cursor - %(count)s AS cursor
    )
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        first_seen_at, last_seen_at, snapshot_at, metrics, cursor
    )
    SELECT
        gen_random_uuid(), sha256(n::text::bytea), 'active', 'ledger', 'Ledger', '1.0', 'production', 'docker',
        'linux/amd64', now(), now(), now(), metrics, feed_advanced.cursor + n
    FROM jsonb_array_elements(%(metrics)s::jsonb) WITH ORDINALITY AS each (metrics, n)
    CROSS JOIN feed_advanced
"""


def insert_metrics(database: str, metrics: Sequence[dict[str, Any]]) -> None:
    """Inserts an instance with each of these metrics objects."""
    with admin_cursor(database) as cursor:
        cursor.execute(INSERT_METRICS, {"metrics": json.dumps(metrics), "count": len(metrics)})
        cursor.execute("ANALYZE instances")
