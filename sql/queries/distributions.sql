-- name: compute_all
-- The distribution of every number over the current snapshots of an application, in one scan: for small fleets.
WITH leaf AS MATERIALIZED (
    SELECT l.key, l.value::numeric AS value
    FROM instance_states s
    CROSS JOIN settings
    CROSS JOIN LATERAL jsonb_each(s.leaves) l
    WHERE
        s.app_slug = %(app)s AND s.status <> 'revoked' AND s.snapshot_at + settings.active_window > now()
        AND (s.counted OR NOT %(counted_only)s::boolean)
        AND jsonb_typeof(l.value) = 'number'
),
sorted AS (
    SELECT key, count(*) AS instances, array_agg(value ORDER BY value) AS sorted_values FROM leaf GROUP BY key
)
SELECT
    key, now() AS as_of,
-- use: distribution
FROM sorted;

-- name: refresh_one
-- Computes and stores the distribution of one key over the current snapshots of an application, unless the stored
-- one is newer than `max_age` or another process computes it. The larger work_mem keeps a sort of a million values
-- off the disk.
SET LOCAL work_mem = '64MB';
WITH lock AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(
        {distributions_lock}, hashtext(concat_ws('/', %(app)s::text, %(counted_only)s::boolean, %(key)s::text))
    ) AS is_acquired
    WHERE NOT EXISTS (
        SELECT FROM distributions
        WHERE
            app_slug = %(app)s AND counted_only = %(counted_only)s::boolean AND key = %(key)s
            AND as_of > now() - %(max_age)s::interval
    )
),
sorted AS (
    SELECT count(*) AS instances, array_agg(value ORDER BY value) AS sorted_values
    FROM (
        SELECT (s.leaves -> %(key)s)::numeric AS value
        FROM instance_states s
        CROSS JOIN settings
        WHERE
            coalesce((SELECT is_acquired FROM lock), FALSE)
            AND s.app_slug = %(app)s AND s.status <> 'revoked' AND s.snapshot_at + settings.active_window > now()
            AND (s.counted OR NOT %(counted_only)s::boolean)
            AND jsonb_typeof(s.leaves -> %(key)s) = 'number'
    ) metric_values
)
INSERT INTO distributions (app_slug, counted_only, key, instances, as_of, cursor, min, p50, p90, max)
SELECT
    %(app)s::text, %(counted_only)s::boolean, %(key)s::text, instances, now(), (SELECT cursor FROM feed_head),
-- use: distribution
FROM sorted
WHERE instances > 0
ON CONFLICT (app_slug, counted_only, key) DO UPDATE SET
    instances = excluded.instances, as_of = excluded.as_of, cursor = excluded.cursor, min = excluded.min,
    p50 = excluded.p50, p90 = excluded.p90, max = excluded.max
RETURNING key;

-- name: delete_unused
-- Deletes distributions that have not been requested for a while: their keys or instances may no longer exist.
DELETE FROM distributions
WHERE ctid = ANY(ARRAY(SELECT ctid FROM distributions WHERE as_of < now() - %(retention)s::interval LIMIT %(limit)s))
RETURNING 1 AS deleted;
