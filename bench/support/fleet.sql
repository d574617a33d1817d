-- Inserts active installs with the same result as registering and activating each of them; updates the tallies too.
SELECT pg_advisory_xact_lock({writers_lock});
INSERT INTO applications (slug, name) VALUES ('bench', 'Bench') ON CONFLICT (slug) DO NOTHING;
WITH before AS (
    SELECT * FROM instance_states WHERE FALSE
),
after AS (
    SELECT
        new.instance_id, 'bench' AS app_slug, '1.4.2' AS app_version, 'production' AS environment,
        'active' AS status, now() AS first_seen_at, now() AS last_seen_at, NULL::timestamptz AS snapshot_at,
        '{}'::jsonb AS leaves, new.public_key, head.cursor + row_number() OVER () AS cursor
    FROM unnest(%(ids)s::uuid[], %(keys)s::text[]) AS new (instance_id, public_key)
    CROSS JOIN feed_head head
),
-- use: deltas
-- use: tallies_updated
inserted AS (
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, environment, deployment_mode, os_arch,
        first_seen_at, last_seen_at, counted, elapsed_windows, reporting, refresh_at, cursor
    )
    SELECT
        instance_id, decode(public_key, 'hex'), status, app_slug, 'Bench', app_version, environment, 'docker',
        'linux/amd64', first_seen_at, last_seen_at, counted, elapsed_windows, reporting, refresh_at, cursor
    FROM evaluated
    RETURNING cursor
)
UPDATE feed_head SET cursor = (SELECT max(cursor) FROM inserted);
