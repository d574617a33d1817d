-- Statements that delete instances with all data about them, and notify the feed.

-- name: delete_oldest_snapshots
-- Removes the oldest snapshots of an instance from the series and deletes them, if it has more than `limit` that are
-- rolled up. `delete_instance` does the rest: it holds the writers' lock, which it must not hold for a long history.
SELECT pg_advisory_xact_lock({rollup_lock});
SELECT pg_advisory_xact_lock({writers_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id, revoked_at FROM instances
    WHERE
        instance_id = %(instance_id)s
        AND (%(public_key)s::bytea IS NULL OR (public_key = %(public_key)s AND status <> 'revoked'))
),
oldest AS MATERIALIZED (
    SELECT
        instance_id, snapshot_at, app_slug, app_version, coalesce(leaves, metrics) AS leaves,
        lead(snapshot_at) OVER (PARTITION BY instance_id ORDER BY snapshot_at) AS next_at
    FROM (
        SELECT * FROM snapshots
        WHERE
            instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND cursor <= (SELECT cursor FROM series_head)
        ORDER BY snapshot_at
        LIMIT %(limit)s::bigint + 1
    ) page
),
removed AS MATERIALIZED (
    SELECT * FROM oldest WHERE next_at IS NOT NULL AND (SELECT count(*) FROM oldest) > %(limit)s::bigint
),
runs AS MATERIALIZED (
    SELECT
        r.app_slug, r.app_version, r.leaves,
        r.snapshot_at AS starts_at,
        TRUE AS was_rolled,
        least(r.next_at, r.snapshot_at + settings.active_window, (SELECT revoked_at FROM target)) AS ended_at,
        FALSE AS is_rolled,
        NULL::timestamptz AS ends_at
    FROM removed r
    CROSS JOIN settings
),
-- use: hours
-- use: days
-- use: series_updated
snapshots_deleted AS (
    DELETE FROM snapshots
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM removed)) AND snapshot_at = ANY(ARRAY(SELECT snapshot_at FROM removed))
    RETURNING snapshot_at
)
SELECT count(*) AS snapshots, min(snapshot_at) AS oldest_snapshot_at, max(snapshot_at) AS newest_snapshot_at FROM snapshots_deleted;

-- name: delete_instance
-- Deletes an instance with all its snapshots, removes it from tallies and series, notifies the feed, and returns a
-- receipt. With a public key the install itself requested it: an instance that is unknown, is revoked, or has another
-- key by now stays. Without one an admin requested it.
SELECT pg_advisory_xact_lock({rollup_lock});
SELECT pg_advisory_xact_lock({writers_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id, app_slug, app_name, revoked_at FROM instances
    WHERE
        instance_id = %(instance_id)s
        AND (%(public_key)s::bytea IS NULL OR (public_key = %(public_key)s AND status <> 'revoked'))
),
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM before
    WHERE FALSE
),
-- use: deltas
-- use: tallies_updated
runs AS MATERIALIZED (
    SELECT
        s.app_slug, s.app_version, coalesce(s.leaves, s.metrics) AS leaves,
        s.snapshot_at AS starts_at,
        TRUE AS was_rolled,
        least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + settings.active_window,
            (SELECT revoked_at FROM target)
        ) AS ended_at,
        FALSE AS is_rolled,
        NULL::timestamptz AS ends_at
    FROM snapshots s
    CROSS JOIN settings
    WHERE
        s.instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND s.cursor <= (SELECT cursor FROM series_head)
),
-- use: hours
-- use: days
-- use: series_updated
snapshots_deleted AS (
    DELETE FROM snapshots WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
    RETURNING snapshot_at
),
absences_deleted AS (
    DELETE FROM absences WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
versions_deleted AS (
    DELETE FROM versions_seen WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
instances_deleted AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM target)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug)
    SELECT f.cursor, t.instance_id, t.app_slug
    FROM target t, feed_advanced f
)
SELECT
    t.instance_id,
    t.app_name,
    now() AS erased_at,
    count(s.snapshot_at) AS snapshots,
    min(s.snapshot_at) AS oldest_snapshot_at,
    max(s.snapshot_at) AS newest_snapshot_at
FROM target t
LEFT JOIN snapshots_deleted s ON TRUE
GROUP BY t.instance_id, t.app_name;

-- name: delete_unconfirmed
-- Deletes instances that have not confirmed their key in time, the oldest first, and notifies the feed.
SELECT pg_advisory_xact_lock({writers_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id, app_slug, row_number() OVER (ORDER BY registered_at, instance_id) AS row_number
    FROM instances
    WHERE status = 'pending' AND first_seen_at IS NULL AND registered_at < now() - %(age)s::interval
    ORDER BY registered_at, instance_id
    LIMIT %(limit)s
),
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM before
    WHERE FALSE
),
-- use: deltas
-- use: tallies_updated
instances_deleted AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug)
    SELECT head.cursor + t.row_number, t.instance_id, t.app_slug
    FROM target t
    CROSS JOIN feed_head head
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM target)
    WHERE EXISTS (SELECT FROM target)
    RETURNING pg_notify('shm_feed', cursor::text)
)
SELECT instance_id FROM target;
