-- Takes over what a database of the original server holds. Each statement can be repeated.

-- name: store_applications
-- Stores applications (a JSON array) that do not exist yet, and their slugs of the original as aliases. One without an ID,
-- or with the ID of another one, gets a new one.
SELECT pg_advisory_xact_lock({writers_lock});
WITH batch AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(batch)s::jsonb) AS (
        id uuid, slug text, old_slug text, name text, github_url text, logo_url text, stars int,
        stars_updated_at timestamptz, created_at timestamptz
    )
),
aliases AS (
    INSERT INTO application_aliases (slug, app_slug)
    SELECT DISTINCT ON (b.old_slug) b.old_slug, b.slug
    FROM batch b
    WHERE
        b.old_slug IS NOT NULL AND NOT EXISTS (SELECT FROM applications a WHERE a.slug = b.old_slug)
        AND NOT EXISTS (SELECT FROM batch other WHERE other.slug = b.old_slug)
    ON CONFLICT (slug) DO NOTHING
)
INSERT INTO applications (id, slug, name, github_url, logo_url, stars, stars_updated_at, created_at)
SELECT
    CASE
        WHEN b.id IS NULL OR EXISTS (SELECT FROM applications a WHERE a.id = b.id)
            OR row_number() OVER (PARTITION BY b.id ORDER BY b.slug) > 1
        THEN gen_random_uuid()
        ELSE b.id
    END,
    b.slug, b.name, b.github_url, b.logo_url, b.stars, b.stars_updated_at, b.created_at
FROM batch b
ON CONFLICT DO NOTHING
RETURNING slug;

-- name: store_instances
-- Stores a batch of instances (a JSON array) as they are in the other database, without snapshots, and returns a verdict
-- for each by its position. A missing application is added.
--   new       it is stored
--   known     it exists, with the same key
--   conflict  it exists, with another key
--   erased    it was erased or deleted here
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH
-- use: enrolment_batch
existing AS MATERIALIZED (
    SELECT instance_id, public_key FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.public_key, b.app_name, b.app_version, b.version_rank, b.environment,
        b.deployment_mode, b.os_arch, b.status, b.first_seen_at, b.last_seen_at,
        coalesce(alias.app_slug, b.app_slug) AS app_slug,
        CASE
            WHEN e.public_key = b.public_key THEN 'known'
            WHEN e.instance_id IS NOT NULL THEN 'conflict'
            WHEN erased.id_hash IS NOT NULL THEN 'erased'
            ELSE 'new'
        END AS verdict
    FROM batch b
    CROSS JOIN settings
    LEFT JOIN existing e ON e.instance_id = b.instance_id
    LEFT JOIN erased_identities erased ON erased.id_hash = sha256(settings.hash_key || uuid_send(b.instance_id))
    LEFT JOIN application_aliases alias ON alias.slug = b.app_slug
),
before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM verdicts WHERE verdict = 'new'))
),
after AS MATERIALIZED (
    SELECT
        instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at,
        NULL::timestamptz AS snapshot_at, '{}'::jsonb AS leaves
    FROM verdicts
    WHERE verdict = 'new'
),
-- use: deltas
-- use: tallies_updated
-- use: departed
-- use: feed_numbered
applications_added AS (
    INSERT INTO applications (slug, name)
    SELECT DISTINCT ON (app_slug) app_slug, app_name FROM verdicts WHERE verdict = 'new' ORDER BY app_slug, position
    ON CONFLICT (slug) DO NOTHING
),
stored AS (
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, version_rank, environment, deployment_mode,
        os_arch, registered_at, first_seen_at, last_seen_at, revoked_at, counted, elapsed_windows, reporting, refresh_at,
        cursor
    )
    SELECT
        p.instance_id, v.public_key, p.status, p.app_slug, v.app_name, p.app_version, v.version_rank, p.environment,
        v.deployment_mode, v.os_arch, p.first_seen_at, p.first_seen_at, p.last_seen_at,
        CASE WHEN p.status = 'revoked' THEN p.last_seen_at END, p.counted, p.elapsed_windows, p.reporting, p.refresh_at,
        n.cursor
    FROM evaluated p
    JOIN verdicts v ON v.instance_id = p.instance_id
    JOIN numbered n ON n.instance_id = p.instance_id
)
SELECT position, verdict FROM verdicts;
