-- Imports from a database of the original server or from a complete export of SHM. Each statement can be repeated.

-- name: store_applications
-- Stores applications (a JSON array) that do not exist yet, and their slugs of the original as aliases. One without an ID,
-- or with the ID of another one, gets a new one. No row for one whose slug is an alias in this database: it was merged.
SELECT pg_advisory_xact_lock({writers_lock});
WITH batch AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(batch)s::jsonb) AS (
        id uuid, slug text, old_slug text, name text, github_url text, logo_url text, stars int,
        stars_updated_at timestamptz, created_at timestamptz, overrides jsonb, public_metrics text[]
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
INSERT INTO applications (
    id, slug, name, github_url, logo_url, stars, stars_updated_at, created_at, overrides, public_metrics
)
SELECT
    CASE
        WHEN b.id IS NULL OR EXISTS (SELECT FROM applications a WHERE a.id = b.id)
            OR row_number() OVER (PARTITION BY b.id ORDER BY b.slug) > 1
        THEN gen_random_uuid()
        ELSE b.id
    END,
    b.slug, b.name, b.github_url, b.logo_url, b.stars, b.stars_updated_at, b.created_at, coalesce(b.overrides, '{}'),
    coalesce(b.public_metrics, '{}')
FROM batch b
WHERE b.overrides IS NULL OR NOT EXISTS (SELECT FROM application_aliases a WHERE a.slug = b.slug)
ON CONFLICT DO NOTHING
RETURNING slug;

-- name: store_aliases
-- Stores names under which installs register with another application (a JSON array), unless an application has the name.
SELECT pg_advisory_xact_lock({writers_lock});
INSERT INTO application_aliases (slug, app_slug)
SELECT b.slug, coalesce(alias.app_slug, b.app_slug)
FROM jsonb_to_recordset(%(batch)s::jsonb) AS b (slug text, app_slug text)
LEFT JOIN application_aliases alias ON alias.slug = b.app_slug
WHERE NOT EXISTS (SELECT FROM applications a WHERE a.slug = b.slug)
ON CONFLICT (slug) DO NOTHING
RETURNING slug;

-- name: freeze_history
-- Records that raw snapshots from before `raw_since` were deleted in the other database. Its days before `frozen_until`,
-- which no snapshot in this database can confirm, are stored as they are and never computed again.
SELECT pg_advisory_xact_lock({rollup_lock});
UPDATE series_head SET
    raw_since = greatest(raw_since, %(raw_since)s::timestamptz),
    frozen_until = greatest(frozen_until, %(frozen_until)s::timestamptz),
    hours_since = greatest(hours_since, %(frozen_until)s::timestamptz)
RETURNING raw_since;

-- name: store_days
-- Stores values of closed days (a JSON array) that do not exist yet, from the database with the hash key of this name. An
-- application takes days from one source only, and only if it has none before `frozen_until` when their import begins:
-- values of another server would have to be added to them, and a repeated import would add them twice.
-- Returns the numbers of stored values, and of those that belong to an application with another source or days of its own,
-- or to one that does not exist.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH batch AS MATERIALIZED (
    SELECT
        coalesce(alias.app_slug, b.app_slug) AS app_slug, concat_ws('/', %(database)s::text, b.app_slug) AS source,
        b.metric_type, b.key, b.value, b.at, b.total, b.instances
    FROM jsonb_to_recordset(%(batch)s::jsonb) AS b (
        app_slug text, metric_type text, key text, value text, at timestamptz, total numeric, instances bigint
    )
    LEFT JOIN application_aliases alias ON alias.slug = b.app_slug
),
begun AS (
    UPDATE applications a SET days_source = b.source
    FROM (SELECT app_slug, min(source) AS source FROM batch GROUP BY app_slug) b
    WHERE
        a.slug = b.app_slug AND a.days_source IS NULL
        AND NOT EXISTS (
            SELECT FROM series_days d WHERE d.app_slug = b.app_slug AND d.at < %(frozen_until)s::timestamptz
        )
    RETURNING a.slug, a.days_source
),
sources AS MATERIALIZED (
    SELECT slug, days_source FROM begun
    UNION ALL
    SELECT slug, days_source FROM applications
    WHERE slug = ANY(ARRAY(SELECT app_slug FROM batch)) AND days_source IS NOT NULL
),
accepted AS MATERIALIZED (
    SELECT b.* FROM batch b JOIN sources s ON s.slug = b.app_slug AND s.days_source = b.source
),
stored AS (
    INSERT INTO series_days (app_slug, metric_type, key, value, at, total, instances)
    SELECT DISTINCT ON (1, 2, 3, 4, 5) app_slug, metric_type, key, value, at, total, instances FROM accepted
    ON CONFLICT DO NOTHING
    RETURNING at
)
SELECT
    (SELECT count(*) FROM stored) AS stored,
    (SELECT count(*) FROM batch) - (SELECT count(*) FROM accepted) AS refused;

-- name: store_instances
-- Stores a batch of instances (a JSON array) as they are in the other database, without snapshots, and returns a verdict
-- for each by its position. An application is added if it is missing and the instance has proved its key. Only instances
-- of SHM have the columns from `registered_at` on.
--   new       it is stored
--   known     it exists, with the same key
--   conflict  it exists, with another key
--   erased    it was erased or deleted in this database
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH
batch AS MATERIALIZED (
    SELECT *, decode(encoded_key, 'base64') AS public_key
    FROM ROWS FROM (
        jsonb_to_recordset(%(batch)s::jsonb) AS (
            instance_id uuid,
            public_key text,
            app_slug text,
            app_name text,
            app_version text,
            version_rank text,
            environment text,
            deployment_mode text,
            os_arch text,
            status text,
            first_seen_at timestamptz,
            last_seen_at timestamptz,
            registered_at timestamptz,
            revoked_at timestamptz,
            erased_at timestamptz,
            needs_approval boolean,
            previous_app_slug text,
            hints jsonb,
            absences jsonb
        )
    ) WITH ORDINALITY AS member (
        instance_id, encoded_key, app_slug, app_name, app_version, version_rank, environment, deployment_mode, os_arch,
        status, first_seen_at, last_seen_at, registered_at, revoked_at, erased_at, needs_approval, previous_app_slug, hints,
        absences, position
    )
),
existing AS MATERIALIZED (
    SELECT instance_id, public_key FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.public_key, b.app_name, b.app_version, b.version_rank, b.environment,
        b.deployment_mode, b.os_arch, b.status, b.first_seen_at, b.last_seen_at,
        coalesce(b.registered_at, b.first_seen_at) AS registered_at,
        CASE WHEN b.status = 'revoked' THEN coalesce(b.revoked_at, b.last_seen_at, b.registered_at) END AS revoked_at,
        b.erased_at, coalesce(b.needs_approval, FALSE) AS needs_approval, b.previous_app_slug, b.hints, b.absences,
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
    SELECT DISTINCT ON (app_slug) app_slug, app_name
    FROM verdicts
    WHERE verdict = 'new' AND first_seen_at IS NOT NULL
    ORDER BY app_slug, position
    ON CONFLICT (slug) DO NOTHING
),
hints_stored AS (
    INSERT INTO metric_hints (instance_id, hints)
    SELECT instance_id, hints FROM verdicts WHERE verdict = 'new' AND hints IS NOT NULL
    ON CONFLICT (instance_id) DO NOTHING
),
absences_stored AS (
    INSERT INTO absences (instance_id, lost_at, returned_at)
    SELECT v.instance_id, a.lost_at, a.returned_at
    FROM verdicts v
    CROSS JOIN LATERAL jsonb_to_recordset(v.absences) AS a (lost_at timestamptz, returned_at timestamptz)
    WHERE v.verdict = 'new'
    ON CONFLICT (instance_id, lost_at) DO NOTHING
),
stored AS (
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, version_rank, environment, deployment_mode,
        os_arch, registered_at, first_seen_at, last_seen_at, revoked_at, erased_at, needs_approval, previous_app_slug,
        counted, elapsed_windows, reporting, refresh_at, cursor
    )
    SELECT
        p.instance_id, v.public_key, p.status, p.app_slug, v.app_name, p.app_version, v.version_rank, p.environment,
        v.deployment_mode, v.os_arch, v.registered_at, p.first_seen_at, p.last_seen_at, v.revoked_at, v.erased_at,
        v.needs_approval, v.previous_app_slug, p.counted, p.elapsed_windows, p.reporting, p.refresh_at, n.cursor
    FROM evaluated p
    JOIN verdicts v ON v.instance_id = p.instance_id
    JOIN numbered n ON n.instance_id = p.instance_id
)
SELECT position, verdict FROM verdicts;

-- name: store_versions
-- Stores when instances (a JSON array) first reported a version, of versions whose first snapshot was deleted in the other
-- database. The rollup stores the others.
SELECT pg_advisory_xact_lock({rollup_lock});
INSERT INTO versions_seen (instance_id, app_version, app_slug, first_at)
SELECT DISTINCT ON (i.instance_id, s.version)
    i.instance_id, s.version, coalesce(alias.app_slug, s.app_slug), s.first_at
FROM jsonb_to_recordset(%(batch)s::jsonb) AS b (instance_id uuid, versions jsonb)
JOIN instances i ON i.instance_id = b.instance_id AND i.erasing_since IS NULL
CROSS JOIN LATERAL jsonb_to_recordset(b.versions) AS s (version text, app_slug text, first_at timestamptz)
LEFT JOIN application_aliases alias ON alias.slug = s.app_slug
ORDER BY i.instance_id, s.version, s.first_at
ON CONFLICT (instance_id, app_version) DO NOTHING
RETURNING instance_id;

-- name: set_versions
-- Sets the versions of instances (a JSON array) that registered another one after their last snapshot, unless this
-- server has received a report of them since.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH batch AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(batch)s::jsonb) AS (
        instance_id uuid, app_version text, version_rank text, last_seen_at timestamptz
    )
),
before AS MATERIALIZED (
    SELECT s.*
    FROM batch b
    JOIN instances i ON i.instance_id = b.instance_id
    JOIN instance_states s ON s.instance_id = i.instance_id
    WHERE i.app_version <> b.app_version AND i.last_seen_at = b.last_seen_at AND i.erasing_since IS NULL
),
sent_keys AS (
    SELECT ''::text AS app_slug, ''::text AS key, 0::bigint AS instances WHERE FALSE
),
sent_values AS (
    SELECT ''::text AS app_slug, ''::text AS key, ''::text AS value, 0::bigint AS instances WHERE FALSE
),
sent_versions AS MATERIALIZED (
    SELECT s.app_slug, b.app_version, count(*) AS instances
    FROM before s
    JOIN batch b ON b.instance_id = s.instance_id
    WHERE s.snapshot_at IS NOT NULL
    GROUP BY s.app_slug, b.app_version
),
-- use: keys_admitted
after AS MATERIALIZED (
    SELECT
        s.instance_id, s.app_slug, CASE WHEN r.app_version IS NULL THEN b.app_version END AS app_version, s.environment,
        s.status, s.first_seen_at, s.last_seen_at, s.snapshot_at, s.leaves
    FROM before s
    JOIN batch b ON b.instance_id = s.instance_id
    LEFT JOIN refused_versions r ON r.app_slug = s.app_slug AND r.app_version = b.app_version
),
-- use: deltas
-- use: tallies_updated
-- use: departed
-- use: feed_numbered
updated AS (
    UPDATE instances i SET
        app_version = b.app_version,
        version_rank = b.version_rank,
        version_refused = p.app_version IS NULL,
-- use: evaluated_columns
        cursor = n.cursor
    FROM evaluated p
    JOIN batch b ON b.instance_id = p.instance_id
    JOIN numbered n ON n.instance_id = p.instance_id
    WHERE i.instance_id = p.instance_id
)
SELECT instance_id FROM after;
