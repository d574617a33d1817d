-- Statements that read a database of the original server. They are not for SHM's schema. Each row may have been changed
-- by hand, or come from a hostile server: these statements cut texts and bound times, and Python checks everything else.

-- name: find_tables
-- Whether the schema has the original's tables, recognized by columns that SHM does not have, and whether it has the table
-- of applications, which the original's first release lacked.
SELECT
    count(*) FILTER (WHERE (table_name, column_name) IN (('snapshots', 'data'), ('instances', 'public_key'))) = 2
        AS is_original,
    count(*) FILTER (WHERE (table_name, column_name) IN (('applications', 'app_slug'), ('instances', 'application_id'))) = 2
        AS has_applications
FROM information_schema.columns
WHERE table_schema = current_schema();

-- name: set_read_only
-- From now on this session cannot change the database.
SELECT set_config('default_transaction_read_only', 'on', FALSE);

-- name: count_rows
-- The numbers of instances and of snapshots.
SELECT (SELECT count(*) FROM instances) AS instances, (SELECT count(*) FROM snapshots) AS snapshots;

-- name: select_applications
-- A page of applications, by slug and ID after the last one of the page before.
SELECT
    id::text,
    coalesce(app_slug, '') AS slug,
    left(app_name, %(max_text)s) AS name,
    left(github_url, %(max_text)s) AS github_url,
    left(logo_url, %(max_text)s) AS logo_url,
    coalesce(github_stars, 0) AS stars,
    CASE
        WHEN github_stars_updated_at IS NOT NULL
        THEN least(greatest(github_stars_updated_at::timestamptz, %(oldest)s::timestamptz), %(now)s::timestamptz)
    END AS stars_updated_at,
    least(greatest(coalesce(created_at, %(now)s)::timestamptz, %(oldest)s::timestamptz), %(now)s::timestamptz)
        AS created_at
FROM applications
WHERE
    %(after_slug)s::text IS NULL
    OR (coalesce(app_slug, ''), coalesce(id::text, '')) > (%(after_slug)s::text, coalesce(%(after_id)s::text, ''))
ORDER BY coalesce(app_slug, ''), coalesce(id::text, '')
LIMIT %(limit)s;

-- name: select_instances
-- A page of instances, by ID after the last one of the page before. `public_key`: the bytes of the column, which are hex
-- digits as text, in hex.
SELECT
    i.instance_id::text,
    encode(substring(i.public_key FROM 1 FOR %(max_key)s), 'hex') AS public_key,
    left(coalesce(a.app_name, i.app_name), %(max_text)s) AS app_name,
    left(coalesce(i.app_version, ''), %(max_text)s) AS app_version,
    left(coalesce(i.environment, ''), %(max_text)s) AS environment,
    left(coalesce(i.deployment_mode, ''), %(max_text)s) AS deployment_mode,
    left(coalesce(i.os_arch, ''), %(max_text)s) AS os_arch,
    coalesce(i.status, 'pending') AS status,
    least(
        greatest(coalesce(i.created_at, i.last_seen_at, %(now)s)::timestamptz, %(oldest)s::timestamptz),
        %(now)s::timestamptz
    ) AS created_at,
    least(
        greatest(coalesce(i.last_seen_at, i.created_at, %(now)s)::timestamptz, %(oldest)s::timestamptz),
        %(now)s::timestamptz
    ) AS last_seen_at
FROM instances i
LEFT JOIN applications a ON a.id = i.application_id
WHERE i.instance_id IS NOT NULL AND (%(after)s::uuid IS NULL OR i.instance_id > %(after)s::uuid)
ORDER BY i.instance_id
LIMIT %(limit)s;

-- name: select_snapshots
-- A page of snapshots, in the order in which they were stored. `snapshot_at` is null outside of the given times, and
-- `data` for more bytes than the given number.
SELECT
    id,
    instance_id::text,
    CASE
        WHEN snapshot_at::timestamptz BETWEEN %(since)s::timestamptz AND %(until)s::timestamptz
        THEN snapshot_at::timestamptz
    END AS snapshot_at,
    coalesce(snapshot_at::timestamptz < %(since)s::timestamptz, FALSE) AS is_expired,
    CASE WHEN octet_length(coalesce(data::text, '')) <= %(max_bytes)s THEN coalesce(data::text, 'null') END AS data
FROM snapshots
WHERE id > %(after)s::bigint
ORDER BY id
LIMIT %(limit)s;
