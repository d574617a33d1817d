-- name: insert_missing
-- Creates the application of a name, if it is missing. It runs when an instance confirms its key; several instances
-- may do so at once.
INSERT INTO applications (slug, name) VALUES (%(slug)s, %(name)s)
ON CONFLICT (slug) DO NOTHING;

-- name: select_page
-- Applications by slug, after the last one of the page before.
SELECT slug, name, github_url, logo_url, stars, created_at, updated_at, overrides, public_metrics
FROM applications
WHERE %(after)s::text IS NULL OR slug > %(after)s
ORDER BY slug
LIMIT %(limit)s;

-- name: select_by_slug (prepared)
-- The application of a slug.
SELECT slug, name, github_url, logo_url, stars, created_at, updated_at, overrides, public_metrics
FROM applications
WHERE slug = %(slug)s;

-- name: resolve_slug
-- The slug that a text refers to: the text itself if an application or an instance has it, else the slug of the
-- name.
SELECT CASE
    WHEN
        EXISTS (SELECT FROM applications WHERE slug = %(slug)s)
        OR EXISTS (SELECT FROM instances WHERE app_slug = %(slug)s)
    THEN %(slug)s::text
    ELSE %(slug_of_name)s::text
END AS slug;

-- name: update
-- Changes the vendor's settings of an application; null leaves a column as it is. `overrides` replace those of the same
-- keys. No row: there is no such application, or it would have more than `max_overrides`. This may change the KPIs, so
-- the feed sends them.
SELECT pg_advisory_xact_lock({writers_lock});
WITH updated AS (
    UPDATE applications SET
        github_url = CASE WHEN %(github_url)s::text IS NULL THEN github_url ELSE nullif(%(github_url)s, '') END,
        logo_url = CASE WHEN %(logo_url)s::text IS NULL THEN logo_url ELSE nullif(%(logo_url)s, '') END,
        overrides = (overrides || %(overrides)s::jsonb) - %(removed_overrides)s::text[],
        public_metrics = coalesce(%(public_metrics)s::text[], public_metrics),
        updated_at = now()
    WHERE
        slug = %(slug)s
        AND (
            SELECT count(*) FROM jsonb_object_keys((overrides || %(overrides)s::jsonb) - %(removed_overrides)s::text[])
        ) <= %(max_overrides)s
    RETURNING slug
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM updated)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
apps_changed AS (
    INSERT INTO app_changes (app_slug, cursor) SELECT u.slug, f.cursor FROM updated u, feed_advanced f
    ON CONFLICT (app_slug) DO UPDATE SET cursor = excluded.cursor
)
SELECT slug FROM updated;

-- name: mark_changed
-- Makes the feed send an application's KPIs again, after a background computation of distributions.
SELECT pg_advisory_xact_lock({writers_lock});
WITH feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
)
INSERT INTO app_changes (app_slug, cursor) SELECT %(slug)s, f.cursor FROM feed_advanced f
ON CONFLICT (app_slug) DO UPDATE SET cursor = excluded.cursor
RETURNING app_slug AS slug;

-- name: select_unknown_keys
-- Those of the keys that no install of an application sends in its current snapshot, sorted. Keys whose values are not
-- aggregated are in no tally; they are searched in the snapshots of the `max_recent` most recently seen instances.
WITH RECURSIVE untallied AS MATERIALIZED (
    SELECT requested.key
    FROM unnest(%(keys)s::text[]) requested (key)
    WHERE NOT EXISTS (
        SELECT FROM tallies t
        WHERE
            t.app_slug = %(app)s AND t.metric_type IN ('number', 'boolean', 'strings') AND t.key = requested.key
            AND t.instances > 0
    )
),
recent AS MATERIALIZED (
    SELECT metrics FROM instances
    WHERE app_slug = %(app)s AND EXISTS (SELECT FROM untallied)
    ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
    LIMIT %(max_recent)s
),
walk AS (
    SELECT e.key, e.value FROM recent CROSS JOIN LATERAL jsonb_each(recent.metrics) e
    UNION ALL
    SELECT w.key || '.' || e.key, e.value
    FROM walk w
    CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(w.value) WHEN 'object' THEN w.value ELSE '{}' END) e
)
SELECT key FROM untallied
WHERE key NOT IN (SELECT key FROM walk WHERE jsonb_typeof(value) <> 'object')
ORDER BY key COLLATE "C";

-- name: select_hidden_keys
-- The keys that each application hides, for applications with such keys.
SELECT a.slug, array_agg(o.key) AS keys
FROM applications a
CROSS JOIN LATERAL jsonb_each(a.overrides) o
WHERE o.value -> 'hidden' = 'true'::jsonb
GROUP BY a.slug;
