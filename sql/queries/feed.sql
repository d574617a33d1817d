-- Reads of the feed. Its cursor is advanced by the statements that change what it sends, each in a CTE `feed_advanced`, under
-- the writers' lock: those of snapshots in `sql/parts/intake.sql`, those of several instances in part `feed_numbered` of
-- `sql/parts/tallies.sql`, those of one instance in `sql/queries/instances.sql`.

-- name: select_head
-- The newest assigned cursor, and the newest cursor whose removal has been deleted.
SELECT cursor, horizon FROM feed_head;

-- name: select_changes
-- The changes after a cursor, up to `until` and the head, in the order of their cursors; of one application (with the
-- instances that left it) or of all. `kind`: `instance`, an instance in its present state; `removed`, a deleted instance;
-- `left`, an instance that moved to another application; `application`, a change of the KPIs without a change of an
-- instance. Rows of the last three kinds have no other columns of an instance. Each row has the head and the horizon. The
-- statement returns at least one row: without a kind if nothing changed.
SELECT head.cursor AS head, head.horizon, page.*
FROM feed_head head
LEFT JOIN (
    (
        SELECT 'instance' AS kind, item.* FROM instance_items item
        WHERE
-- use: changed_after
        ORDER BY cursor
        LIMIT %(limit)s::bigint
    )
    UNION ALL
    SELECT other.kind, item.*
    FROM (
        (
            SELECT CASE WHEN changed_app THEN 'left' ELSE 'removed' END AS kind, instance_id, app_slug, cursor
            FROM removals
            WHERE
-- use: changed_after
            ORDER BY cursor
            LIMIT %(limit)s::bigint
        )
        UNION ALL
        (
            SELECT 'application', NULL, app_slug, cursor
            FROM app_changes
            WHERE
-- use: changed_after
            ORDER BY cursor
            LIMIT %(limit)s::bigint
        )
    ) other
    CROSS JOIN LATERAL jsonb_populate_record(NULL::instance_items, to_jsonb(other)) item
    ORDER BY cursor
    LIMIT %(limit)s::bigint
) page ON TRUE
ORDER BY page.cursor;

-- name: select_recently_changed_apps
-- Applications (or the requested one) with a change within `span` cursors before this one, or at it.
SELECT app_slug AS slug
FROM (
    SELECT app_slug FROM instances
    WHERE
-- use: changed_until
    UNION
    SELECT app_slug FROM removals
    WHERE
-- use: changed_until
    UNION
    SELECT app_slug FROM app_changes
    WHERE
-- use: changed_until
) apps_changed
WHERE %(app)s::text IS NULL OR app_slug = %(app)s;

-- name: delete_old_removals
-- Deletes removals that are older than the feed's memory, the oldest first, and advances the horizon.
SELECT pg_advisory_xact_lock({writers_lock});
WITH old AS (
    DELETE FROM removals WHERE cursor = ANY(ARRAY(
        SELECT cursor FROM removals WHERE removed_at < now() - %(memory)s::interval ORDER BY cursor LIMIT %(limit)s
    ))
    RETURNING cursor
)
UPDATE feed_head SET horizon = greatest(horizon, (SELECT max(cursor) FROM old))
WHERE EXISTS (SELECT FROM old)
RETURNING horizon;

-- name: delete_later_snapshots
-- Deletes snapshots that have a cursor which the feed never issued. A backup of a Citus cluster contains those that the
-- workers stored while pg_dump ran, without all that follows from them: it reads the coordinator as of its start.
SELECT pg_advisory_xact_lock({rollup_lock});
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM snapshots WHERE cursor > (SELECT cursor FROM feed_head);

-- name: skip_cursors
-- Moves the feed to cursors that were never issued. A restored database has issued fewer cursors than its subscribers have
-- seen: each of them lists again.
SELECT pg_advisory_xact_lock({writers_lock});
UPDATE feed_head SET cursor = cursor + %(skipped)s::bigint, horizon = cursor + %(skipped)s::bigint;
