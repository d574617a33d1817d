-- Everything that `shm export --all` writes. A page may be of a later moment than the one before it.

-- name: select_history
-- How many instances there are. `raw_since`: snapshots from before are deleted, or will be, because they are older than
-- `oldest`; null if there never were any. Days before `frozen_until` cannot be computed from the later snapshots.
SELECT
    (SELECT count(*) FROM instances) AS instances,
    nullif(raw.since, '-infinity') AS raw_since,
    nullif(greatest(
        h.frozen_until,
        date_trunc('day', raw.since + settings.active_window + interval '1 day' - interval '1 microsecond')
    ), '-infinity') AS frozen_until
FROM series_head h
CROSS JOIN settings
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN EXISTS (SELECT s.cursor FROM snapshots s WHERE s.snapshot_at < %(oldest)s::timestamptz)
        THEN greatest(h.raw_since, %(oldest)s::timestamptz)
        ELSE h.raw_since
    END AS since
) raw;

-- name: select_applications
-- A page of applications, by slug after the last one of the page before.
SELECT id::text, slug, name, github_url, logo_url, stars, stars_updated_at, created_at, overrides, public_metrics
FROM applications
WHERE slug > %(after)s::text
ORDER BY slug
LIMIT %(limit)s;

-- name: select_aliases
-- A page of names under which installs register with another application.
SELECT slug, app_slug
FROM application_aliases
WHERE slug > %(after)s::text
ORDER BY slug
LIMIT %(limit)s;

-- name: select_days
-- A page of the values of days before `until`, after the last one of the page before.
SELECT app_slug, metric_type, key, value, at, trim_scale(total) AS total, instances
FROM series_days
WHERE
    at < %(until)s::timestamptz
    AND (app_slug, metric_type, key, value, at) > (
        %(app_slug)s::text, %(metric_type)s::text, %(key)s::text, %(value)s::text, %(at)s::timestamptz
    )
ORDER BY app_slug, metric_type, key, value, at
LIMIT %(limit)s;

-- name: select_instances
-- A page of instances with what is stored about each, by ID after the last one of the page before. `versions` are those
-- whose first snapshot is from before `raw_since`.
SELECT
    i.instance_id, encode(i.public_key, 'hex') AS public_key, i.status, i.app_slug, i.app_name, i.app_version, i.environment,
    i.deployment_mode, i.os_arch, i.registered_at, i.first_seen_at, i.last_seen_at, i.revoked_at, i.erased_at,
    i.needs_approval, i.previous_app_slug,
    (SELECT h.hints FROM metric_hints h WHERE h.instance_id = i.instance_id) AS hints,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('lost_at', a.lost_at, 'returned_at', a.returned_at) ORDER BY a.lost_at)
        FROM absences a
        WHERE a.instance_id = i.instance_id
    ), '[]') AS absences,
    coalesce((
        SELECT jsonb_agg(
            jsonb_build_object('version', v.app_version, 'app_slug', v.app_slug, 'first_at', v.first_at) ORDER BY v.first_at
        )
        FROM versions_seen v
        WHERE v.instance_id = i.instance_id AND v.first_at < %(raw_since)s::timestamptz
    ), '[]') AS versions
FROM instances i
WHERE i.instance_id > %(after)s::uuid AND i.erasing_since IS NULL
ORDER BY i.instance_id
LIMIT %(limit)s;

-- name: select_snapshots
-- A page of the snapshots since `raw_since` of the instances up to `last_id`, by instance and time after the last one of the
-- page before; of an instance without one, the snapshot that it shows.
SELECT instance_id, snapshot_at, received_at, app_version, app_slug, sequence, metrics
FROM snapshots
WHERE
    (instance_id, snapshot_at) > (%(after_id)s::uuid, %(after_at)s::timestamptz) AND instance_id <= %(last_id)s::uuid
    AND (%(raw_since)s::timestamptz IS NULL OR snapshot_at >= %(raw_since)s::timestamptz)
UNION ALL
SELECT instance_id, snapshot_at, last_seen_at, app_version, app_slug, sequence, metrics
FROM instances
WHERE
    (instance_id, snapshot_at) > (%(after_id)s::uuid, %(after_at)s::timestamptz) AND instance_id <= %(last_id)s::uuid
    AND snapshot_at < %(raw_since)s::timestamptz
ORDER BY instance_id, snapshot_at
LIMIT %(limit)s;
