-- A statement that changes what the feed sends or what tallies depend on takes the writers' lock first, as a statement of
-- its own: the second one then sees all that earlier writers did, and cursors are committed in their order.

-- name: register
-- Stores an unsigned registration and returns the verdict. A new instance becomes pending, and so does one that is pending
-- under another key which nobody has confirmed: whoever signs first owns the ID. Of a known instance the content is staged.
-- A deleted ID belongs to its last key as long as its hash is kept. The name of an application may be an alias of another.
-- Without `may_add` nothing new becomes pending.
SELECT pg_advisory_xact_lock({writers_lock});
WITH existing AS MATERIALIZED (
    SELECT
        public_key, status = 'revoked' OR erasing_since IS NOT NULL AS is_refused,
        public_key <> %(public_key)s AS has_other_key,
        status = 'pending' AND first_seen_at IS NULL AS is_unconfirmed
    FROM instances
    WHERE instance_id = %(instance_id)s
),
erased AS MATERIALIZED (
    SELECT
        e.erased_at,
        e.key_hash <> sha256(s.hash_key || uuid_send(%(instance_id)s::uuid) || %(public_key)s) AS has_other_key
    FROM settings s
    JOIN erased_identities e ON e.id_hash = sha256(s.hash_key || uuid_send(%(instance_id)s::uuid))
),
application AS MATERIALIZED (
    SELECT coalesce(
        (SELECT alias.app_slug FROM application_aliases alias WHERE alias.slug = %(app_slug)s), %(app_slug)s::text
    ) AS slug
),
registered AS MATERIALIZED (
    SELECT (SELECT erased_at FROM erased) AS erased_at
    WHERE
        %(may_add)s::boolean
        AND NOT EXISTS (SELECT FROM erased WHERE has_other_key)
        AND NOT EXISTS (SELECT FROM existing WHERE is_refused OR NOT (is_unconfirmed AND has_other_key))
),
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = %(instance_id)s AND EXISTS (SELECT FROM registered)
),
after AS (
    SELECT
        %(instance_id)s::uuid AS instance_id, application.slug AS app_slug, %(app_version)s::text AS app_version,
        %(environment)s::text AS environment, 'pending' AS status, NULL::timestamptz AS first_seen_at,
        NULL::timestamptz AS last_seen_at, NULL::timestamptz AS snapshot_at, '{}'::jsonb AS leaves
    FROM registered
    CROSS JOIN application
),
-- use: deltas
-- use: tallies_updated
-- use: departed
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1 + (SELECT count(*) FROM departed)
    WHERE EXISTS (SELECT FROM registered)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug, changed_app)
    SELECT m.cursor - 1, d.instance_id, d.app_slug, TRUE
    FROM departed d, feed_advanced m
),
stored AS (
    INSERT INTO instances (
        instance_id, public_key, app_slug, app_name, app_version, version_rank, environment, deployment_mode, os_arch,
        erased_at, counted, cursor
    )
    SELECT
        p.instance_id, %(public_key)s, p.app_slug, %(app_name)s, p.app_version, %(version_rank)s, p.environment,
        %(deployment_mode)s, %(os_arch)s, r.erased_at, p.counted, f.cursor
    FROM evaluated p
    CROSS JOIN registered r
    CROSS JOIN feed_advanced f
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
    UPDATE instances SET staged = jsonb_build_object(
        'app_slug', (SELECT slug FROM application), 'app_name', %(app_name)s::text, 'app_version', %(app_version)s::text,
        'environment', %(environment)s::text, 'deployment_mode', %(deployment_mode)s::text,
        'os_arch', %(os_arch)s::text
    )
    WHERE instance_id = %(instance_id)s AND EXISTS (SELECT FROM existing WHERE NOT is_refused AND NOT has_other_key)
)
SELECT CASE
    WHEN EXISTS (SELECT FROM registered) THEN 'new'
    WHEN EXISTS (SELECT FROM existing WHERE is_refused) THEN 'revoked'
    WHEN EXISTS (SELECT FROM existing WHERE NOT has_other_key) THEN 'known'
    WHEN NOT %(may_add)s::boolean THEN 'over_limit'
    ELSE 'conflict'
END AS verdict;

-- name: select_staged
-- The staged registration of an instance, the application that it will belong to once that takes effect, and whether the
-- instance was erased after the time of the signature. No row: unknown, revoked, being erased, or another key.
SELECT
    staged,
    coalesce(staged ->> 'app_slug', app_slug) AS slug,
    coalesce(staged ->> 'app_name', app_name) AS name,
    erased_at IS NOT NULL AND (%(signed_at)s::timestamptz > erased_at) IS NOT TRUE AS signed_before_erasure
FROM instances
WHERE instance_id = %(instance_id)s AND public_key = %(public_key)s AND status <> 'revoked' AND erasing_since IS NULL;

-- name: confirm_key
-- Applies a verified signature: the staged registration that `select_staged` returned takes effect, and the instance
-- becomes active unless approval is required. `version_rank` belongs to the staged version, if any. A registration staged
-- since then waits for the next signature. If `max_new_installs` have been seen for the first time in this hour, a further
-- one needs approval (null: no limit). An instance that moves to another application takes those keys there that are
-- aggregated in it. `signed_at`: the time that was signed; the instance was seen now. Without it,
-- the request may be a replay: it counts as seen only the first time.
SELECT pg_advisory_xact_lock({writers_lock});
WITH before AS MATERIALIZED (
    SELECT s.*
    FROM instance_states s
    JOIN instances i USING (instance_id)
    WHERE
        s.instance_id = %(instance_id)s AND i.public_key = %(public_key)s AND s.status <> 'revoked'
        AND i.erasing_since IS NULL AND (i.erased_at IS NULL OR i.erased_at < %(signed_at)s::timestamptz)
),
approval AS MATERIALIZED (
    SELECT
        i.needs_approval OR (
            i.status = 'pending' AND i.first_seen_at IS NULL AND coalesce((
                SELECT sum(t.instances) FROM tallies t
                WHERE t.metric_type = 'new' AND t.key = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')
            ), 0) >= %(max_new_installs)s::bigint
        ) AS needs_approval
    FROM instances i
    WHERE i.instance_id = ANY(ARRAY(SELECT instance_id FROM before))
),
moved AS MATERIALIZED (
    SELECT
        i.instance_id, %(staged)s::jsonb ->> 'app_slug' AS app_slug, flatten_metrics(i.metrics) AS leaves,
        CASE WHEN s.app_slug = %(staged)s::jsonb ->> 'app_slug' THEN coalesce(s.leaves, s.metrics) END AS sent_leaves
    FROM instances i
    LEFT JOIN snapshots s ON s.instance_id = i.instance_id AND s.snapshot_at = i.snapshot_at
    WHERE
        i.instance_id = ANY(ARRAY(SELECT instance_id FROM before))
        AND %(staged)s::jsonb ->> 'app_slug' <> i.app_slug AND i.snapshot_at IS NOT NULL
),
sent_keys AS (
    SELECT m.app_slug, leaf.key, 1 AS instances
    FROM moved m
    CROSS JOIN LATERAL jsonb_each(m.leaves) leaf
    WHERE m.sent_leaves IS NULL
),
sent_values AS (
    SELECT m.app_slug, leaf.key, leaf.value #>> '{}' AS value, 1 AS instances
    FROM moved m
    CROSS JOIN LATERAL jsonb_each(m.leaves) leaf
    WHERE m.sent_leaves IS NULL AND jsonb_typeof(leaf.value) = 'string'
),
-- use: keys_admitted
moved_leaves AS MATERIALIZED (
    SELECT
        m.instance_id,
        coalesce(
            m.sent_leaves,
            m.leaves - (ARRAY(SELECT key FROM refused_keys) || ARRAY(SELECT key FROM refused_values))
        ) AS leaves
    FROM moved m
),
after AS (
    SELECT
        instance_id,
        coalesce(%(staged)s::jsonb ->> 'app_slug', app_slug) AS app_slug,
        coalesce(%(staged)s::jsonb ->> 'app_version', app_version) AS app_version,
        coalesce(%(staged)s::jsonb ->> 'environment', environment) AS environment,
        CASE
            WHEN status = 'pending' AND (%(requires_approval)s::boolean OR (SELECT needs_approval FROM approval))
            THEN 'pending' ELSE 'active'
        END AS status,
        coalesce(first_seen_at, now()) AS first_seen_at,
        CASE WHEN first_seen_at IS NULL OR %(signed_at)s::timestamptz IS NOT NULL THEN now() ELSE last_seen_at END AS last_seen_at,
        snapshot_at,
        coalesce((SELECT leaves FROM moved_leaves), leaves) AS leaves
    FROM before
),
-- use: deltas
-- use: tallies_updated
-- use: absences_ended
-- use: departed
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1 + (SELECT count(*) FROM departed)
    WHERE EXISTS (SELECT FROM before)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug, changed_app)
    SELECT f.cursor - 1, d.instance_id, d.app_slug, TRUE
    FROM departed d, feed_advanced f
)
UPDATE instances i SET
    status = p.status,
    app_slug = p.app_slug,
    previous_app_slug = CASE WHEN p.app_slug <> i.app_slug THEN i.app_slug ELSE i.previous_app_slug END,
    app_name = coalesce(%(staged)s::jsonb ->> 'app_name', i.app_name),
    app_version = p.app_version,
    version_rank = coalesce(%(version_rank)s, i.version_rank),
    environment = p.environment,
    deployment_mode = coalesce(%(staged)s::jsonb ->> 'deployment_mode', i.deployment_mode),
    os_arch = coalesce(%(staged)s::jsonb ->> 'os_arch', i.os_arch),
    staged = nullif(i.staged, %(staged)s::jsonb),
    first_seen_at = p.first_seen_at,
    last_seen_at = p.last_seen_at,
    leaves = CASE WHEN p.app_slug <> i.app_slug THEN nullif(p.leaves, i.metrics) ELSE i.leaves END,
    needs_approval = p.status = 'pending' AND coalesce((SELECT needs_approval FROM approval), FALSE),
    app_cursor = CASE WHEN p.app_slug <> i.app_slug THEN f.cursor ELSE i.app_cursor END,
-- use: evaluated_columns
    cursor = f.cursor
FROM evaluated p, feed_advanced f
WHERE i.instance_id = p.instance_id
RETURNING i.status;

-- name: set_status
-- An admin's decision: active or revoked. Revoked is final. `end_series` ends a revoked instance in the series.
SELECT pg_advisory_xact_lock({writers_lock});
WITH before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE instance_id = %(instance_id)s AND status <> %(status)s AND status <> 'revoked'
),
after AS (
    SELECT
        instance_id, app_slug, app_version, environment, %(status)s::text AS status, first_seen_at, last_seen_at,
        snapshot_at, leaves
    FROM before
),
-- use: deltas
-- use: tallies_updated
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM before)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
)
UPDATE instances i SET
    status = p.status,
-- use: evaluated_columns
    cursor = m.cursor
FROM evaluated p, feed_advanced m
WHERE i.instance_id = p.instance_id;

-- name: end_series
-- Ends a revoked instance in the series with its last hour: the runs of its newest snapshot, and of those with later
-- times, are cut there. It does not need the writers' lock; the row of the instance is locked last and for a moment.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id FROM instances
    WHERE instance_id = %(instance_id)s AND status = 'revoked' AND revoked_at IS NULL
),
runs AS MATERIALIZED (
    SELECT
        s.app_slug, s.app_version, coalesce(s.leaves, s.metrics) AS leaves,
        s.snapshot_at AS starts_at,
        TRUE AS was_rolled,
        least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + settings.active_window
        ) AS ended_at,
        TRUE AS is_rolled,
        least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + settings.active_window, now()
        ) AS ends_at
    FROM snapshots s
    CROSS JOIN settings
    WHERE
        s.instance_id = %(instance_id)s AND s.cursor <= (SELECT cursor FROM series_head)
        AND s.snapshot_at > now() - settings.active_window
        AND s.snapshot_at >= coalesce((
            SELECT max(n.snapshot_at) FROM snapshots n
            WHERE
                n.instance_id = %(instance_id)s AND n.snapshot_at <= now()
                AND n.cursor <= (SELECT cursor FROM series_head)
        ), '-infinity')
        AND EXISTS (SELECT FROM target)
),
-- use: hours
-- use: days
-- use: series_reduced
cut AS MATERIALIZED (
    SELECT now() AS at, count(*) AS rows FROM hours
)
UPDATE instances SET revoked_at = cut.at
FROM cut
WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target));

-- name: rotate_key
-- Replaces the key by a new one; a repetition has no further effect. No row: unknown, revoked, or a third key by
-- now.
SELECT pg_advisory_xact_lock({writers_lock});
UPDATE instances SET public_key = %(new_key)s
WHERE
    instance_id = %(instance_id)s AND public_key IN (%(public_key)s, %(new_key)s) AND status <> 'revoked'
    AND erasing_since IS NULL
RETURNING status;

-- name: is_refresh_due
-- Whether the evaluation of an instance has changed by the passing of time alone.
SELECT TRUE AS due FROM instances WHERE refresh_at <= now() LIMIT 1;

-- name: refresh_due
-- Evaluates instances again whose evaluation has changed by the passing of time, the longest due first: `limit` of them,
-- or as many as have `max_leaves` leaves together. Returns their number. The feed sends instances that the headline
-- counted before and does not count now, or the reverse, and the applications whose KPIs have changed.
SELECT pg_advisory_xact_lock({writers_lock});
WITH due AS MATERIALIZED (
    SELECT instance_id, sum(leaf_count) OVER (ORDER BY refresh_at, instance_id) - leaf_count AS leaves_before
    FROM (
        SELECT instance_id, refresh_at, (SELECT count(*) FROM jsonb_object_keys(leaves)) AS leaf_count
        FROM instance_states
        WHERE refresh_at <= now()
        ORDER BY refresh_at
        LIMIT %(limit)s
    ) page
),
before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM due WHERE leaves_before < %(max_leaves)s::bigint))
),
-- use: after_unchanged
-- use: deltas
-- use: tallies_updated
feed_rows AS MATERIALIZED (
    SELECT p.instance_id, head.cursor + row_number() OVER (ORDER BY p.instance_id) AS cursor
    FROM evaluated p
    JOIN before b USING (instance_id)
    CROSS JOIN settings
    CROSS JOIN feed_head head
    WHERE
        b.counted <> p.counted
        OR (
            p.counted
            AND (b.elapsed_windows >= array_position(settings.activity_windows, settings.active_window))
            <> (p.elapsed_windows >= array_position(settings.activity_windows, settings.active_window))
        )
),
apps_changed AS (
    INSERT INTO app_changes (app_slug, cursor)
    SELECT d.app_slug, head.cursor + (SELECT count(*) FROM feed_rows) + row_number() OVER (ORDER BY d.app_slug)
    FROM (SELECT DISTINCT app_slug FROM deltas) d
    CROSS JOIN feed_head head
    ON CONFLICT (app_slug) DO UPDATE SET cursor = excluded.cursor
    RETURNING app_slug
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM feed_rows) + (SELECT count(*) FROM apps_changed)
    WHERE EXISTS (SELECT FROM feed_rows) OR EXISTS (SELECT FROM apps_changed)
    RETURNING pg_notify('shm_feed', cursor::text)
),
updated AS (
    UPDATE instances i SET
-- use: evaluated_columns
        cursor = coalesce(feed_rows.cursor, i.cursor)
    FROM evaluated p
    LEFT JOIN feed_rows ON feed_rows.instance_id = p.instance_id
    WHERE i.instance_id = p.instance_id
)
SELECT count(*) AS refreshed FROM before;

-- name: export_instance
-- All stored data of an instance but its snapshots.
SELECT
    instance_id, encode(public_key, 'hex') AS public_key, status, app_name, app_slug, app_version, version_rank,
    environment, deployment_mode, os_arch, registered_at, first_seen_at, last_seen_at, revoked_at, erased_at,
    erasing_since, staged, previous_app_slug, app_cursor, needs_approval, counted,
    elapsed_windows, reporting, refresh_at,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('lost_at', a.lost_at, 'returned_at', a.returned_at) ORDER BY a.lost_at)
        FROM absences a
        WHERE a.instance_id = instances.instance_id
    ), '[]') AS absences,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('version', v.app_version, 'first_at', v.first_at) ORDER BY v.first_at)
        FROM versions_seen v
        WHERE v.instance_id = instances.instance_id
    ), '[]') AS versions
FROM instances
WHERE instance_id = %(instance_id)s;

-- name: export_snapshots
-- Snapshots of an instance, oldest first, after the last one of the page before.
SELECT snapshot_at, received_at, app_version, sequence, metrics
FROM snapshots
WHERE instance_id = %(instance_id)s AND snapshot_at > %(after)s::timestamptz
ORDER BY snapshot_at
LIMIT %(limit)s;

-- name: select_item
-- An instance as the API shows it, with the feed's cursor.
SELECT head.cursor AS head, item.*
FROM instance_items item
CROSS JOIN feed_head head
WHERE item.instance_id = %(instance_id)s;

-- name: select_public_keys (prepared)
-- The public keys that the signatures of these instances are verified with.
SELECT instance_id, public_key FROM instances WHERE instance_id = ANY(%(instance_ids)s::uuid[]);

-- name: find_by_prefix
-- The number of instances with an ID between two, at most `limit`, and the first of these IDs; empty if there is none.
SELECT count(*) AS instances, coalesce(min(instance_id::text), '') AS instance_id
FROM (
    SELECT instance_id FROM instances
    WHERE instance_id BETWEEN %(first_id)s::uuid AND %(last_id)s::uuid
    LIMIT %(limit)s
) found;
