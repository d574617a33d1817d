"""A database with a long history of raw snapshots, none of which is rolled up."""

from tests.support.databases import admin_cursor

# One snapshot of each install every five hours, the newest now; `%` is written `%%`.
INSERT_HISTORY = """
    INSERT INTO applications (slug, name, created_at) VALUES ('ledger', 'Ledger', now() - interval '200 days');
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        registered_at, first_seen_at, last_seen_at, refresh_at, cursor
    )
    SELECT
        md5('install ' || n)::uuid, decode(md5('a' || n) || md5('b' || n), 'hex'), 'active', 'ledger', 'Ledger',
        '1.' || n %% 7, 'production', 'docker', 'linux/amd64', now() - interval '200 days',
        now() - interval '200 days', now() - interval '200 days', '-infinity', n
    FROM generate_series(1, %(installs)s) n;
    INSERT INTO tallies (app_slug, metric_type, key, value, total, instances, counted_total, counted_instances)
    SELECT 'ledger', 'status', 'active', '0', 0, count(*), 0, count(*) FROM instances
    UNION ALL
    SELECT
        'ledger', 'new', to_char(first_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24'), '', 0, count(*), 0, count(*)
    FROM instances
    GROUP BY 3;
    INSERT INTO snapshots (instance_id, snapshot_at, received_at, app_version, metrics, app_slug, leaves, cursor)
    SELECT
        instance_id, at, at + interval '1 second', app_version, metrics, 'ledger', flatten_metrics(metrics),
        row_number() OVER (ORDER BY at, instance_id)
    FROM (
        SELECT
            md5('install ' || n)::uuid AS instance_id, '1.' || n %% 7 AS app_version,
            date_trunc('second', now() - (%(each)s - h) * interval '5 hours' - n * interval '1 second') AS at,
            jsonb_build_object(
                'orders', h, 'mail', jsonb_build_object('sent', n + h), 'beta', h %% 2 = 0, 'locale', 'fr'
            ) AS metrics
        FROM generate_series(1, %(installs)s) n
        CROSS JOIN generate_series(1, %(each)s) h
    ) sent;
    WITH s AS MATERIALIZED (
        SELECT DISTINCT ON (instance_id) * FROM snapshots ORDER BY instance_id, snapshot_at DESC
    )
    UPDATE instances i SET
        snapshot_at = s.snapshot_at, last_seen_at = s.received_at, metrics = s.metrics, leaves = s.leaves
    FROM s
    WHERE s.instance_id = i.instance_id;
    UPDATE feed_head SET cursor = %(installs)s * %(each)s;
    ANALYZE;
"""


def fill_with_history(dsn: str, installs: int, snapshots: int) -> None:
    """Fills an empty database with `installs` installs of the application `ledger`, each with `snapshots` snapshots."""
    with admin_cursor(dsn) as cursor:
        cursor.execute(INSERT_HISTORY, {"installs": installs, "each": snapshots})
