-- Registrations and confirmed keys, many in one transaction. No two members of a batch are of the same instance.

-- name: register_batch (prepared)
-- Stores a batch of registrations (a JSON array), which are unsigned or whose signature was verified with their own key,
-- and returns a verdict for each by its position:
--   new         the instance is pending: nobody had its ID, or nobody had proved the key that had it; whoever signs first
--               owns the ID. A deleted ID belongs to its last key as long as its hash is kept
--   known       with the same key; the content is staged
--   conflict    the ID has another key
--   refused     the instance is revoked, or being erased
--   erased      the instance was deleted after the time of the signature, or has erased itself and no time is signed
--   over_limit  it would be new, or a conflict, and must not be (`may_create`)
--   replayed    this signed registration was carried out before
-- The name of an application may be an alias of another.
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
            may_create boolean,
            signed_at timestamptz,
            action_hash text
        )
    ) WITH ORDINALITY AS member (
        instance_id, encoded_key, app_slug, app_name, app_version, version_rank, environment, deployment_mode, os_arch,
        may_create, signed_at, action_hash, position
    )
),
existing AS MATERIALIZED (
    SELECT
        instance_id, public_key,
        status = 'revoked' OR erasing_since IS NOT NULL AS is_refused,
        status = 'pending' AND first_seen_at IS NULL AS is_unproven
    FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.public_key, b.app_name, b.app_version, b.version_rank, b.environment,
        b.deployment_mode, b.os_arch, erased.erased_at,
        coalesce(alias.app_slug, b.app_slug) AS app_slug,
        CASE
            WHEN action.action_hash IS NOT NULL THEN 'replayed'
            WHEN e.is_refused THEN 'refused'
            WHEN e.public_key = b.public_key THEN 'known'
            WHEN NOT b.may_create THEN 'over_limit'
            WHEN
                NOT e.is_unproven
                OR erased.key_hash <> sha256(settings.hash_key || uuid_send(b.instance_id) || b.public_key)
            THEN 'conflict'
            WHEN erased.is_by_install AND b.signed_at IS NULL OR b.signed_at <= erased.erased_at THEN 'erased'
            ELSE 'new'
        END AS verdict
    FROM batch b
    CROSS JOIN settings
    LEFT JOIN existing e ON e.instance_id = b.instance_id
    LEFT JOIN erased_identities erased ON erased.id_hash = sha256(settings.hash_key || uuid_send(b.instance_id))
    LEFT JOIN signed_actions action ON action.action_hash = decode(b.action_hash, 'base64')
    LEFT JOIN application_aliases alias ON alias.slug = b.app_slug
),
before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM verdicts WHERE verdict = 'new'))
),
after AS MATERIALIZED (
    SELECT
        instance_id, app_slug, app_version, environment, 'pending' AS status, NULL::timestamptz AS first_seen_at,
        NULL::timestamptz AS last_seen_at, NULL::timestamptz AS snapshot_at, '{}'::jsonb AS leaves
    FROM verdicts
    WHERE verdict = 'new'
),
-- use: deltas
-- use: tallies_updated
-- use: departed
-- use: feed_numbered
stored AS (
    INSERT INTO instances (
        instance_id, public_key, app_slug, app_name, app_version, version_rank, environment, deployment_mode, os_arch,
        erased_at, counted, cursor
    )
    SELECT
        p.instance_id, v.public_key, p.app_slug, v.app_name, p.app_version, v.version_rank, p.environment,
        v.deployment_mode, v.os_arch, v.erased_at, p.counted, n.cursor
    FROM evaluated p
    JOIN verdicts v ON v.instance_id = p.instance_id
    JOIN numbered n ON n.instance_id = p.instance_id
    ON CONFLICT (instance_id) DO UPDATE SET
        public_key = excluded.public_key,
        app_slug = excluded.app_slug,
        app_name = excluded.app_name,
        app_version = excluded.app_version,
        version_rank = excluded.version_rank,
        environment = excluded.environment,
        deployment_mode = excluded.deployment_mode,
        os_arch = excluded.os_arch,
        registered_at = excluded.registered_at,
        staged = NULL,
        counted = excluded.counted,
        cursor = excluded.cursor
),
staged AS (
    UPDATE instances i SET staged = jsonb_build_object(
        'app_slug', v.app_slug, 'app_name', v.app_name, 'app_version', v.app_version, 'version_rank', v.version_rank,
        'environment', v.environment, 'deployment_mode', v.deployment_mode, 'os_arch', v.os_arch
    )
    FROM verdicts v
    WHERE i.instance_id = v.instance_id AND v.verdict = 'known'
)
SELECT position, verdict FROM verdicts;

-- name: confirm_batch (prepared)
-- Applies a batch of verified signatures (a JSON array): each staged registration takes effect, for the application that
-- its own was merged with since, if any, and each instance becomes
-- active unless approval is required. Returns a verdict for each by its position:
--   active, pending  the status of the instance from now on
--   unknown          no such instance, another key, revoked, or being erased
--   erased           the instance was erased after the time of the signature
--   replayed         this signed action was carried out before
--   deferred         nothing was changed, because `max_moves` others move to another application with all their values
-- If `max_new_installs` have been seen for the first time in this hour, a further one needs approval (null: no limit).
-- A missing application is added, unless `max_new_applications` came to be in the last hour (null: no limit): then a new
-- instance of a further one needs approval, and a known instance stays in its application. An instance that waits for
-- approval adds none, and one that was approved before it proved its key adds its own in any case. An instance that
-- moves to another application takes those keys there that are aggregated in it; if that application was merged since the
-- registration, the instance moves to the one that it was merged into. `signed_at`: the time that was signed; the
-- instance was seen now. Without it, the request may be a replay: it counts as seen only the first time. `hints` about
-- metrics are stored if the instance is active.
-- `unranked_version`: a version that took effect and was staged by a release that did not store its rank.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH batch AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        jsonb_to_recordset(%(batch)s::jsonb) AS (
            instance_id uuid, public_key text, signed_at timestamptz, action_hash text, request_id uuid, hints jsonb
        )
    ) WITH ORDINALITY AS member (instance_id, public_key, signed_at, action_hash, request_id, hints, position)
),
existing AS MATERIALIZED (
    SELECT
        instance_id, public_key, status, app_slug, app_name, app_version, staged, first_seen_at, snapshot_at, metrics,
        needs_approval, erased_at, erasing_since
    FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
requested AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.signed_at, b.action_hash, b.request_id, e.staged, e.snapshot_at, e.metrics, e.needs_approval,
        e.status = 'pending' AND e.first_seen_at IS NULL AS is_first,
        e.status = 'active' AND e.first_seen_at IS NULL AS is_approved,
        e.app_slug AS old_slug,
        e.app_name AS old_name,
        coalesce(alias.app_slug, e.staged ->> 'app_slug', e.app_slug) AS new_slug,
        coalesce(e.staged ->> 'app_name', e.app_name) AS new_name,
        application.slug IS NULL AS is_missing,
        coalesce(e.staged ->> 'app_version', e.app_version) AS version,
        CASE
            WHEN action.action_hash IS NOT NULL AND action.request_id IS DISTINCT FROM b.request_id THEN 'replayed'
            WHEN
                e.instance_id IS NULL OR e.public_key <> decode(b.public_key, 'base64') OR e.status = 'revoked'
                OR e.erasing_since IS NOT NULL
            THEN 'unknown'
            WHEN e.erased_at IS NOT NULL AND (b.signed_at > e.erased_at) IS NOT TRUE THEN 'erased'
            WHEN
                e.staged ->> 'app_slug' <> e.app_slug AND e.snapshot_at IS NOT NULL
                AND row_number() OVER (
                    PARTITION BY e.staged ->> 'app_slug' <> e.app_slug AND e.snapshot_at IS NOT NULL ORDER BY b.position
                ) > %(max_moves)s::bigint
            THEN 'deferred'
            ELSE 'confirmed'
        END AS verdict
    FROM batch b
    LEFT JOIN existing e ON e.instance_id = b.instance_id
    LEFT JOIN signed_actions action ON action.action_hash = decode(b.action_hash, 'base64')
    LEFT JOIN application_aliases alias ON alias.slug = e.staged ->> 'app_slug'
    LEFT JOIN applications application
        ON application.slug = coalesce(alias.app_slug, e.staged ->> 'app_slug', e.app_slug)
),
missing AS MATERIALIZED (
    SELECT
        new_slug AS slug,
        (array_agg(new_name ORDER BY position))[1] AS name,
        bool_or(is_approved) AS is_approved,
        row_number() OVER (ORDER BY bool_or(is_approved) DESC, min(position)) AS number
    FROM requested
    WHERE verdict = 'confirmed' AND is_missing AND NOT needs_approval
    GROUP BY new_slug
),
added AS MATERIALIZED (
    SELECT slug, name FROM missing
    WHERE
        is_approved
        OR number + (SELECT count(*) FROM applications WHERE created_at > now() - interval '1 hour')
        <= coalesce(%(max_new_applications)s::numeric, 'Infinity')
),
verdicts AS MATERIALIZED (
    SELECT
        r.position, r.instance_id, r.signed_at, r.action_hash, r.request_id, r.staged, r.snapshot_at, r.metrics, r.is_first,
        r.old_slug, r.version, r.verdict,
        r.needs_approval OR r.is_first AND r.is_missing AND a.slug IS NULL AS needs_approval,
        CASE WHEN r.is_missing AND a.slug IS NULL AND NOT r.is_first THEN r.old_slug ELSE r.new_slug END AS app_slug,
        CASE WHEN r.is_missing AND a.slug IS NULL AND NOT r.is_first THEN r.old_name ELSE r.new_name END AS app_name
    FROM requested r
    LEFT JOIN added a ON a.slug = r.new_slug
),
before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM verdicts WHERE verdict = 'confirmed'))
),
approvals AS MATERIALIZED (
    SELECT
        v.instance_id,
        v.needs_approval OR coalesce(
            v.is_first AND coalesce(hour.instances, 0) + row_number() OVER (PARTITION BY v.is_first ORDER BY v.position)
            > %(max_new_installs)s::bigint,
            FALSE
        ) AS needs_approval
    FROM verdicts v
    CROSS JOIN (
        SELECT sum(instances) AS instances FROM tallies
        WHERE metric_type = 'new' AND key = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')
    ) hour
    WHERE v.verdict = 'confirmed'
),
moving AS MATERIALIZED (
    SELECT instance_id, app_slug, snapshot_at, flatten_metrics(metrics) AS leaves
    FROM verdicts
    WHERE verdict = 'confirmed' AND app_slug <> old_slug AND snapshot_at IS NOT NULL
),
sent_versions AS (
    SELECT app_slug, version AS app_version, 1 AS instances FROM verdicts
    WHERE verdict = 'confirmed' AND snapshot_at IS NOT NULL
),
-- use: moved_leaves
after AS MATERIALIZED (
    SELECT
        b.instance_id,
        v.app_slug,
        CASE WHEN r.app_version IS NULL THEN v.version END AS app_version,
        coalesce(v.staged ->> 'environment', b.environment) AS environment,
        CASE
            WHEN b.status = 'pending' AND (%(requires_approval)s::boolean OR a.needs_approval) THEN 'pending'
            ELSE 'active'
        END AS status,
        coalesce(b.first_seen_at, now()) AS first_seen_at,
        CASE WHEN b.first_seen_at IS NULL OR v.signed_at IS NOT NULL THEN now() ELSE b.last_seen_at END AS last_seen_at,
        b.snapshot_at,
        coalesce(m.leaves, b.leaves) AS leaves
    FROM before b
    JOIN verdicts v ON v.instance_id = b.instance_id
    JOIN approvals a ON a.instance_id = b.instance_id
    LEFT JOIN moved_leaves m ON m.instance_id = b.instance_id
    LEFT JOIN refused_versions r
        ON r.app_slug = v.app_slug AND r.app_version = v.version AND b.snapshot_at IS NOT NULL
),
-- use: deltas
-- use: tallies_updated
-- use: absences_ended
-- use: departed
-- use: feed_numbered
actions_recorded AS (
    INSERT INTO signed_actions (action_hash, signed_at, request_id)
    SELECT decode(action_hash, 'base64'), signed_at, request_id
    FROM verdicts
    WHERE verdict = 'confirmed' AND action_hash IS NOT NULL
    ON CONFLICT (action_hash) DO NOTHING
),
hints_stored AS (
    INSERT INTO metric_hints (instance_id, hints)
    SELECT b.instance_id, b.hints
    FROM batch b
    JOIN verdicts v ON v.position = b.position
    JOIN evaluated p ON p.instance_id = v.instance_id
    WHERE v.verdict = 'confirmed' AND p.status = 'active' AND b.hints IS NOT NULL
    ON CONFLICT (instance_id) DO UPDATE SET hints = excluded.hints
),
applications_added AS (
    INSERT INTO applications (slug, name) SELECT slug, name FROM added
),
updated AS (
    UPDATE instances i SET
        status = p.status,
        app_slug = p.app_slug,
        previous_app_slug = CASE WHEN p.app_slug <> i.app_slug THEN i.app_slug ELSE i.previous_app_slug END,
        app_name = v.app_name,
        app_version = v.version,
        version_refused = p.app_version IS NULL,
        version_rank = coalesce(v.staged ->> 'version_rank', i.version_rank),
        environment = p.environment,
        deployment_mode = coalesce(v.staged ->> 'deployment_mode', i.deployment_mode),
        os_arch = coalesce(v.staged ->> 'os_arch', i.os_arch),
        staged = NULL,
        first_seen_at = p.first_seen_at,
        last_seen_at = p.last_seen_at,
        leaves = CASE WHEN p.app_slug <> i.app_slug THEN nullif(p.leaves, i.metrics) ELSE i.leaves END,
        needs_approval = p.status = 'pending' AND a.needs_approval,
        app_cursor = CASE WHEN p.app_slug <> i.app_slug THEN n.cursor ELSE i.app_cursor END,
-- use: evaluated_columns
        cursor = n.cursor
    FROM evaluated p
    JOIN verdicts v ON v.instance_id = p.instance_id
    JOIN approvals a ON a.instance_id = p.instance_id
    JOIN numbered n ON n.instance_id = p.instance_id
    WHERE i.instance_id = p.instance_id
)
SELECT
    v.position,
    CASE v.verdict WHEN 'confirmed' THEN p.status ELSE v.verdict END AS verdict,
    CASE
        WHEN v.verdict = 'confirmed' AND NOT v.staged ? 'version_rank' THEN v.staged ->> 'app_version'
    END AS unranked_version
FROM verdicts v
LEFT JOIN evaluated p ON p.instance_id = v.instance_id;
