-- Changes of many instances. The pages are read without a lock; each instance is then changed by a statement of its own.
-- Of a merge the series follow, in pages.

-- name: count_instances
-- The number of instances that a change would apply to.
SET LOCAL statement_timeout = '10s';
SELECT count(*) AS instances
FROM instances
WHERE
-- use: instance_filter
    AND %(conditions)s::boolean
    AND status <> ALL(%(unaffected)s::text[]) AND erasing_since IS NULL;

-- name: insert
-- Adds a change, unless the maximum number waits: then no row.
INSERT INTO bulk_changes (action, filter, removes_application, instances)
SELECT %(action)s::text, %(filter)s::jsonb, %(removes_application)s::boolean, %(instances)s::bigint
WHERE (SELECT count(*) FROM bulk_changes WHERE finished_at IS NULL) < %(max_unfinished)s
RETURNING id::text AS id, action, instances, processed, failed, error, created_at, finished_at;

-- name: insert_merge
-- Adds a change that moves all instances of an application to another one, unless the maximum number waits: then no row.
-- From now on installs that register with the name of the application belong to the other one, and so do those of its
-- aliases. Registrations hold the writers' lock too, so none of them is missed.
SELECT pg_advisory_xact_lock({writers_lock});
WITH added AS (
    INSERT INTO bulk_changes (action, filter, into_slug, instances)
    SELECT 'move', %(filter)s::jsonb, %(into_slug)s::text, %(instances)s::bigint
    WHERE (SELECT count(*) FROM bulk_changes WHERE finished_at IS NULL) < %(max_unfinished)s
    RETURNING id::text AS id, action, instances, processed, failed, error, created_at, finished_at
),
aliases_changed AS (
    UPDATE application_aliases SET app_slug = %(into_slug)s::text
    WHERE app_slug = %(slug)s::text AND slug NOT IN (%(slug)s::text, %(into_slug)s::text) AND EXISTS (SELECT FROM added)
),
alias_deleted AS (
    DELETE FROM application_aliases WHERE slug = %(into_slug)s::text AND EXISTS (SELECT FROM added)
),
alias_added AS (
    INSERT INTO application_aliases (slug, app_slug)
    SELECT %(slug)s::text, %(into_slug)s::text FROM added
    ON CONFLICT (slug) DO UPDATE SET app_slug = excluded.app_slug
)
SELECT * FROM added;

-- name: select_page
-- Changes, newest first. `after_created` and `after_id` are those of the last one of the page before.
SELECT id::text AS id, action, instances, processed, failed, error, created_at, finished_at
FROM bulk_changes
WHERE %(after_id)s::uuid IS NULL OR (created_at, id) < (%(after_created)s::timestamptz, %(after_id)s::uuid)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: select_next
-- The oldest change that is not finished and need not wait. A merge or a deletion of an application waits for earlier
-- changes of the same applications, and these for it.
SELECT
    c.id::text AS id, c.action, c.filter, c.into_slug, c.removes_application, c.phase, c.after_id::text AS after_id,
    c.failed, c.passes, c.error, c.created_at
FROM bulk_changes c
WHERE
    c.finished_at IS NULL AND c.retry_at <= now() AND NOT EXISTS (
        SELECT FROM bulk_changes e
        WHERE
            e.finished_at IS NULL AND (e.created_at, e.id) < (c.created_at, c.id)
            AND (c.action = 'move' OR c.removes_application OR e.action = 'move' OR e.removes_application)
            AND (
                e.filter ->> 'slug' IN (c.filter ->> 'slug', c.into_slug)
                OR e.into_slug IN (c.filter ->> 'slug', c.into_slug)
            )
    )
ORDER BY c.created_at, c.id
LIMIT 1;

-- name: select_instances
-- The next instances of a change, by ID: those that were registered before it, or all of a merge (`created_at` is null).
SELECT instance_id::text AS instance_id
FROM instances
WHERE
-- use: instance_filter
    AND %(conditions)s::boolean
    AND status <> ALL(%(unaffected)s::text[])
    AND (%(created_at)s::timestamptz IS NULL OR registered_at <= %(created_at)s::timestamptz)
    AND (%(after_id)s::uuid IS NULL OR instance_id > %(after_id)s::uuid)
ORDER BY instance_id
LIMIT %(limit)s;

-- name: select_moved_instances
-- The next instances, by ID, that have changed their application: they may have snapshots that they sent for another.
SELECT instance_id::text AS instance_id
FROM instances
WHERE previous_app_slug IS NOT NULL AND (%(after_id)s::uuid IS NULL OR instance_id > %(after_id)s::uuid)
ORDER BY instance_id
LIMIT %(limit)s;

-- name: advance
-- Records how far a change is. It waits for `pause` before its next step.
UPDATE bulk_changes SET
    phase = %(phase)s,
    after_id = %(after_id)s::uuid,
    processed = processed + %(processed)s,
    failed = %(failed)s,
    passes = %(passes)s,
    error = %(error)s,
    retry_at = now() + %(pause)s::interval,
    finished_at = CASE WHEN %(is_finished)s::boolean THEN now() END
WHERE id = %(id)s AND finished_at IS NULL;

-- name: delete_old
-- Deletes finished changes that are older than `retention`, the oldest first.
DELETE FROM bulk_changes WHERE id = ANY(ARRAY(
    SELECT id FROM bulk_changes
    WHERE finished_at IS NOT NULL AND created_at < now() - %(retention)s::interval
    ORDER BY created_at, id
    LIMIT %(limit)s
));

-- name: move_instance
-- Moves an instance to another application, with the keys that are aggregated in it. So does what it staged for its old
-- one. The feed sends it to both. No row: one of the applications was deleted meanwhile.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH before AS MATERIALIZED (
    SELECT * FROM instance_states
    WHERE
        instance_id = %(instance_id)s AND app_slug = %(app_slug)s
        AND EXISTS (SELECT FROM applications WHERE slug = %(into_slug)s)
),
moving AS MATERIALIZED (
    SELECT instance_id, %(into_slug)s::text AS app_slug, snapshot_at, flatten_metrics(metrics) AS leaves
    FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM before)) AND snapshot_at IS NOT NULL
),
sent_versions AS MATERIALIZED (
    SELECT %(into_slug)s::text AS app_slug, i.app_version, 1 AS instances
    FROM instances i
    WHERE i.instance_id = ANY(ARRAY(SELECT instance_id FROM before)) AND i.snapshot_at IS NOT NULL
),
-- use: moved_leaves
staged_entry AS MATERIALIZED (
    SELECT jsonb_build_object('app_slug', %(into_slug)s::text) AS entry
),
after AS (
    SELECT
        instance_id, %(into_slug)s::text AS app_slug,
        CASE
            WHEN NOT EXISTS (SELECT FROM refused_versions)
            THEN coalesce((SELECT app_version FROM sent_versions), app_version)
        END AS app_version,
        environment, status, first_seen_at, last_seen_at, snapshot_at,
        coalesce((SELECT leaves FROM moved_leaves), leaves) AS leaves
    FROM before
),
-- use: deltas
-- use: tallies_updated
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 2
    WHERE EXISTS (SELECT FROM before)
    RETURNING cursor
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug, changed_app)
    SELECT f.cursor - 1, b.instance_id, b.app_slug, TRUE
    FROM before b, feed_advanced f
)
UPDATE instances i SET
    app_slug = p.app_slug,
    previous_app_slug = i.app_slug,
    app_cursor = f.cursor,
    leaves = nullif(p.leaves, i.metrics),
    version_refused = p.app_version IS NULL,
    staged = CASE
        WHEN i.staged ->> 'app_slug' = i.app_slug THEN i.staged || (SELECT entry FROM staged_entry)
        ELSE i.staged
    END,
-- use: evaluated_columns
    cursor = f.cursor
FROM evaluated p, feed_advanced f
WHERE i.instance_id = p.instance_id
RETURNING i.instance_id;

-- name: move_snapshots
-- Moves the oldest snapshots that an instance sent for an application to another application, with what the series have
-- of them: as many as have `max_leaves` leaves together, at least one, of those after the time `after`. Returns their
-- times. Their leaves are those that are aggregated in the other application, or were in theirs, and so are their versions;
-- the current snapshot has what is aggregated of its instance, so that charts and tallies agree on it.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH target AS MATERIALIZED (
    SELECT
        instance_id, app_slug, snapshot_at, app_version, version_refused, coalesce(leaves, metrics) AS leaves, revoked_at
    FROM instances
    WHERE instance_id = %(instance_id)s
),
page AS MATERIALIZED (
    SELECT * FROM (
        SELECT *, sum(leaf_count) OVER (ORDER BY snapshot_at) - leaf_count AS leaves_before
        FROM (
            SELECT
                instance_id, snapshot_at, cursor, metrics, coalesce(leaves, metrics) AS leaves, app_version,
                version_refused,
                (SELECT count(*) FROM jsonb_object_keys(coalesce(leaves, metrics))) AS leaf_count
            FROM snapshots
            WHERE
                instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND app_slug = %(app_slug)s::text
                AND snapshot_at > coalesce(%(after)s::timestamptz, '-infinity')
                AND EXISTS (SELECT 1 FROM applications WHERE slug = %(into_slug)s::text)
            ORDER BY instance_id, snapshot_at
            LIMIT %(limit)s
        ) oldest
    ) counted
    WHERE leaves_before < %(max_leaves)s::bigint
),
unequal AS MATERIALIZED (
    SELECT
        instance_id, snapshot_at, %(into_slug)s::text AS app_slug, cursor, leaves AS stored,
        flatten_metrics(metrics) AS flattened
    FROM page
    WHERE leaves <> flatten_metrics(metrics)
),
-- use: expected_leaves
rolled AS MATERIALIZED (
    SELECT snapshot_at, lead(snapshot_at) OVER (ORDER BY snapshot_at) AS next_at
    FROM snapshots
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND cursor <= (SELECT cursor FROM series_head)
        AND snapshot_at >= (SELECT min(snapshot_at) FROM page)
        AND snapshot_at <= (SELECT max(snapshot_at) FROM page) + (SELECT active_window FROM settings)
),
moved AS MATERIALIZED (
    SELECT
        p.instance_id, p.snapshot_at, p.app_version, p.version_refused, p.leaves,
        CASE WHEN is_current.value THEN t.leaves ELSE coalesce(e.leaves, p.leaves) END AS new_leaves,
        CASE
            WHEN is_current.value AND p.app_version = t.app_version THEN t.version_refused
            ELSE p.version_refused
        END AS new_version_refused,
        r.snapshot_at IS NOT NULL AS is_rolled,
        least(r.next_at, p.snapshot_at + settings.active_window, t.revoked_at) AS ends_at
    FROM page p
    JOIN target t ON t.instance_id = p.instance_id
    LEFT JOIN rolled r ON r.snapshot_at = p.snapshot_at
    LEFT JOIN expected_leaves e ON e.instance_id = p.instance_id AND e.snapshot_at = p.snapshot_at
    CROSS JOIN settings
    CROSS JOIN LATERAL (
        SELECT t.snapshot_at = p.snapshot_at AND t.app_slug = %(into_slug)s::text AS value
    ) is_current
    WHERE p.instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
runs AS MATERIALIZED (
    SELECT
        %(app_slug)s::text AS app_slug, CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version, leaves,
        snapshot_at AS starts_at, TRUE AS was_rolled, ends_at AS ended_at, FALSE AS is_rolled,
        NULL::timestamptz AS ends_at
    FROM moved
    WHERE is_rolled
    UNION ALL
    SELECT
        %(into_slug)s::text, CASE WHEN new_version_refused THEN NULL ELSE app_version END, new_leaves, snapshot_at,
        FALSE, NULL, TRUE, ends_at
    FROM moved
    WHERE is_rolled
),
-- use: hours
-- use: days
-- use: series_reduced
versions_moved AS (
    UPDATE versions_seen v SET app_slug = %(into_slug)s::text
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND app_slug = %(app_slug)s::text
        AND EXISTS (SELECT 1 FROM applications WHERE slug = %(into_slug)s::text)
        AND first_at <= coalesce((SELECT max(snapshot_at) FROM page), 'infinity')
        AND NOT EXISTS (
            SELECT FROM moved m
            WHERE m.app_version = v.app_version AND m.snapshot_at = v.first_at AND m.new_version_refused
        )
),
versions_ended AS (
    DELETE FROM versions_seen v
    USING moved m
    WHERE
        v.instance_id = m.instance_id AND v.app_version = m.app_version AND v.first_at = m.snapshot_at
        AND m.new_version_refused
),
versions_begun AS (
    INSERT INTO versions_seen (instance_id, app_version, app_slug, first_at)
    SELECT instance_id, app_version, %(into_slug)s::text, snapshot_at FROM moved
    WHERE is_rolled AND version_refused AND NOT new_version_refused
    ON CONFLICT (instance_id, app_version) DO NOTHING
)
UPDATE snapshots s SET
    app_slug = %(into_slug)s::text, leaves = nullif(m.new_leaves, s.metrics), version_refused = m.new_version_refused
FROM moved m
WHERE s.instance_id = m.instance_id AND s.snapshot_at = m.snapshot_at
RETURNING s.snapshot_at;

-- name: move_series
-- Adds what an application still has of the series, which comes from deleted snapshots, to those of another one: `limit`
-- series as a whole, so that days and hours stay consistent. Returns their number. None while an instance or a snapshot
-- of the application would support them.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH moving AS MATERIALIZED (
    SELECT metric_type, key, value FROM (
        (SELECT DISTINCT metric_type, key, value FROM series_hours WHERE app_slug = %(app_slug)s::text LIMIT %(limit)s)
        UNION
        (SELECT DISTINCT metric_type, key, value FROM series_days WHERE app_slug = %(app_slug)s::text LIMIT %(limit)s)
    ) each
    WHERE
        NOT EXISTS (SELECT FROM instances WHERE app_slug = %(app_slug)s::text AND snapshot_at IS NOT NULL)
        AND EXISTS (SELECT 1 FROM applications WHERE slug = %(into_slug)s::text)
    LIMIT %(limit)s
),
source_hours AS (
    DELETE FROM series_hours h
    USING moving m
    WHERE h.app_slug = %(app_slug)s::text AND (h.metric_type, h.key, h.value) = (m.metric_type, m.key, m.value)
    RETURNING h.metric_type, h.key, h.value, h.at, h.total, h.instances
),
source_days AS (
    DELETE FROM series_days d
    USING moving m
    WHERE d.app_slug = %(app_slug)s::text AND (d.metric_type, d.key, d.value) = (m.metric_type, m.key, m.value)
    RETURNING d.metric_type, d.key, d.value, d.at, d.total, d.instances
),
hours AS (
    SELECT %(into_slug)s::text AS app_slug, metric_type, key, value, at, total, instances FROM source_hours
),
days AS (
    SELECT %(into_slug)s::text AS app_slug, metric_type, key, value, at, total, instances FROM source_days
),
-- use: series_updated
done AS (
    SELECT FROM moving
)
SELECT 1 AS moved FROM done;
