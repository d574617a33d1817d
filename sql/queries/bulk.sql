-- Changes of many instances. The pages are read without a lock; each instance is then changed by a statement of its own.

-- name: count_instances
-- The number of instances that a change would apply to.
SET LOCAL statement_timeout = '10s';
SELECT count(*) AS instances
FROM instances
WHERE
-- use: instance_filter
    AND status <> ALL(%(unaffected)s::text[]) AND erasing_since IS NULL;

-- name: insert
-- Adds a change, unless the maximum number waits: then no row.
INSERT INTO bulk_changes (action, filter, into_slug, removes_application, instances)
SELECT %(action)s::text, %(filter)s::jsonb, %(into_slug)s::text, %(removes_application)s::boolean, %(instances)s::bigint
WHERE (SELECT count(*) FROM bulk_changes WHERE finished_at IS NULL) < %(max_unfinished)s
RETURNING id::text AS id, action, instances, processed, created_at, finished_at;

-- name: select_page
-- Changes, newest first. `after_created` and `after_id` are those of the last one of the page before.
SELECT id::text AS id, action, instances, processed, created_at, finished_at
FROM bulk_changes
WHERE %(after_id)s::uuid IS NULL OR (created_at, id) < (%(after_created)s::timestamptz, %(after_id)s::uuid)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: select_unfinished
-- The oldest change that is not finished.
SELECT id::text AS id, action, filter, into_slug, removes_application, after_id::text AS after_id, created_at
FROM bulk_changes
WHERE finished_at IS NULL
ORDER BY created_at, id
LIMIT 1;

-- name: select_instances
-- The next instances of a change, by ID: those that were registered before it.
SELECT instance_id::text AS instance_id
FROM instances
WHERE
-- use: instance_filter
    AND status <> ALL(%(unaffected)s::text[])
    AND registered_at <= %(created_at)s::timestamptz
    AND (%(after_id)s::uuid IS NULL OR instance_id > %(after_id)s::uuid)
ORDER BY instance_id
LIMIT %(limit)s;

-- name: advance
-- Records how far a change is.
UPDATE bulk_changes SET
    after_id = coalesce(%(after_id)s::uuid, after_id),
    processed = processed + %(processed)s,
    finished_at = CASE WHEN %(is_finished)s::boolean THEN now() END
WHERE id = %(id)s AND finished_at IS NULL;

-- name: delete_old
-- Deletes finished changes that are older than they are kept, the oldest first.
DELETE FROM bulk_changes WHERE id = ANY(ARRAY(
    SELECT id FROM bulk_changes
    WHERE finished_at IS NOT NULL AND created_at < now() - %(kept)s::interval
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
-- use: current_snapshots
moved AS MATERIALIZED (
    SELECT
        i.instance_id, %(into_slug)s::text AS app_slug, flatten_metrics(i.metrics) AS leaves,
        CASE WHEN s.app_slug = %(into_slug)s THEN s.leaves END AS sent_leaves
    FROM instances i
    LEFT JOIN current_snapshots s ON s.instance_id = i.instance_id AND s.snapshot_at = i.snapshot_at
    WHERE i.instance_id = ANY(ARRAY(SELECT instance_id FROM before)) AND i.snapshot_at IS NOT NULL
),
sent_versions AS MATERIALIZED (
    SELECT %(into_slug)s::text AS app_slug, i.app_version, 1 AS instances
    FROM instances i
    WHERE i.instance_id = ANY(ARRAY(SELECT instance_id FROM before)) AND i.snapshot_at IS NOT NULL
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
