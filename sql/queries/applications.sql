-- name: select_page
-- Applications by slug, after the last one of the page before.
SELECT id::text, slug, name, github_url, logo_url, stars, stars_updated_at, created_at, updated_at, overrides, public_metrics
FROM applications
WHERE %(after)s::text IS NULL OR slug > %(after)s
ORDER BY slug
LIMIT %(limit)s;

-- name: select_by_slug (prepared)
-- The application of a slug.
SELECT id::text, slug, name, github_url, logo_url, stars, stars_updated_at, created_at, updated_at, overrides, public_metrics
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
    ELSE coalesce(
        (SELECT app_slug FROM application_aliases WHERE slug = %(slug_of_name)s::text),
        %(slug_of_name)s::text
    )
END AS slug;

-- name: update
-- Changes the vendor's settings of an application; null leaves a column as it is. `overrides` replace those of the same
-- keys. No row: there is no such application, or it would have more than `max_overrides`. This may change the KPIs, so
-- the feed sends them.
SELECT pg_advisory_xact_lock({writers_lock});
WITH updated AS (
    UPDATE applications SET
        name = coalesce(%(name)s::text, name),
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

-- name: set_stars
-- Stores the number of stars that GitHub has returned, unless the application has another repository by now.
UPDATE applications SET stars = %(stars)s, stars_updated_at = now(), updated_at = now()
WHERE slug = %(slug)s AND github_url = %(github_url)s
RETURNING slug;

-- name: select_stale_stars
-- Applications with a repository on GitHub whose stars were read longer ago than `age`, except some; the longest ago first.
SELECT slug, github_url FROM applications
WHERE
    github_url ~ '^https://(www\.)?github\.com/' AND coalesce(stars_updated_at, '-infinity') < now() - %(age)s::interval
    AND NOT slug = ANY(%(excluded)s::text[])
ORDER BY stars_updated_at NULLS FIRST, slug
LIMIT %(limit)s;

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
WITH untallied AS MATERIALIZED (
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
    SELECT leaf_keys(metrics) AS keys FROM instances
    WHERE app_slug = %(app)s AND EXISTS (SELECT FROM untallied)
    ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
    LIMIT %(max_recent)s
)
SELECT u.key FROM untallied u
WHERE u.key NOT IN (SELECT unnest(r.keys) FROM recent r)
ORDER BY u.key COLLATE "C";

-- name: select_hidden_keys
-- The keys that each application hides, for applications with such keys.
SELECT a.slug, array_agg(o.key) AS keys
FROM applications a
CROSS JOIN LATERAL jsonb_each(a.overrides) o
WHERE a.overrides <> '{}' AND o.value -> 'hidden' = 'true'::jsonb
GROUP BY a.slug;

-- name: add_alias
-- From now on installs that register with the name of `slug` belong to `app_slug`, unless another application has it: then
-- no row.
SELECT pg_advisory_xact_lock({writers_lock});
INSERT INTO application_aliases AS existing (slug, app_slug) VALUES (%(slug)s, %(app_slug)s)
ON CONFLICT (slug) DO UPDATE SET app_slug = excluded.app_slug WHERE existing.app_slug = excluded.app_slug;

-- name: resolve_alias
-- The application that installs with a name belong to, if the slug of the name is an alias.
SELECT alias.app_slug AS slug FROM application_aliases alias WHERE alias.slug = %(slug)s;

-- name: delete_empty
-- Deletes an application without instances, with the aliases that lead to it, and notifies the feed.
SELECT pg_advisory_xact_lock({writers_lock});
WITH deleted AS (
    DELETE FROM applications
    WHERE
        slug = %(slug)s AND NOT EXISTS (
            SELECT FROM tallies WHERE app_slug = %(slug)s AND metric_type = 'status' AND instances > 0
        )
    RETURNING slug
),
aliases_deleted AS (
    DELETE FROM application_aliases WHERE app_slug = ANY(ARRAY(SELECT slug FROM deleted))
),
refusals_deleted AS (
    DELETE FROM key_refusals WHERE app_slug = ANY(ARRAY(SELECT slug FROM deleted))
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM deleted)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
)
INSERT INTO app_changes (app_slug, cursor) SELECT d.slug, f.cursor FROM deleted d, feed_advanced f
ON CONFLICT (app_slug) DO UPDATE SET cursor = excluded.cursor
RETURNING app_slug AS slug;

-- name: delete_frozen_days
-- Deletes days of the series that cannot be computed again, of an application that does not exist any more.
SELECT pg_advisory_xact_lock({rollup_lock});
DELETE FROM series_days d
USING (
    SELECT app_slug, metric_type, key, value, at FROM series_days
    WHERE
        app_slug = %(slug)s AND at < (SELECT frozen_until FROM series_head)
        AND NOT EXISTS (SELECT FROM applications WHERE slug = %(slug)s)
    LIMIT %(limit)s
) old
WHERE (d.app_slug, d.metric_type, d.key, d.value, d.at) = (old.app_slug, old.metric_type, old.key, old.value, old.at);
