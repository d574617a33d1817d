-- A statement that changes what the feed sends or what tallies depend on takes the writers' lock first, as a statement of
-- its own: the second one then sees all that earlier writers did, and cursors are committed in their order.

-- name: set_status
-- An admin's decision: active or revoked. Revoked is final. `end_series` ends a revoked instance in the series. The approval
-- of an instance that has proved its key adds its application, if that was beyond the limit of new ones.
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
application_added AS (
    INSERT INTO applications (slug, name)
    SELECT app_slug, app_name FROM instances
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM before))
        AND status = 'pending' AND first_seen_at IS NOT NULL AND %(status)s::text = 'active'
    ON CONFLICT (slug) DO NOTHING
),
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
-- times, end in that hour. It does not need the writers' lock; the row of the instance is locked last and for a moment.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id FROM instances
    WHERE instance_id = %(instance_id)s AND status = 'revoked' AND revoked_at IS NULL
),
runs AS MATERIALIZED (
    SELECT
        s.app_slug, coalesce(s.leaves, s.metrics) AS leaves,
        CASE WHEN s.version_refused THEN NULL ELSE s.app_version END AS app_version,
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
        AND EXISTS (SELECT 1 FROM target)
),
-- use: hours
-- use: days
-- use: series_reduced
revocation AS MATERIALIZED (
    SELECT now() AS at, count(*) AS rows FROM hours
)
UPDATE instances SET revoked_at = revocation.at
FROM revocation
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
-- The row of an instance, and what other tables have of it but its snapshots.
SELECT
    instances.*,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('lost_at', a.lost_at, 'returned_at', a.returned_at) ORDER BY a.lost_at)
        FROM absences a
        WHERE a.instance_id = instances.instance_id
    ), '[]') AS absences,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('version', v.app_version, 'first_at', v.first_at) ORDER BY v.first_at)
        FROM versions_seen v
        WHERE v.instance_id = instances.instance_id
    ), '[]') AS versions,
    (SELECT h.hints FROM metric_hints h WHERE h.instance_id = instances.instance_id) AS hints
FROM instances
WHERE instance_id = %(instance_id)s;

-- name: export_snapshots
-- Snapshots of an instance, oldest first, after the last one of the page before.
SELECT snapshot_at, received_at, app_version, version_refused, sequence, metrics
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
