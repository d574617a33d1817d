-- name: head
-- The newest cursor that was given to a change, and the one before which removals are forgotten.
SELECT cursor, horizon FROM feed_head;

-- name: changes
-- What changed after a cursor (of an application: also what left it), in the order of the newest change: instances as
-- they are now, and those that were removed; no further than the head, whatever has been written since that was read. With
-- it the cursor up to which one has now looked, and the horizon. Always
-- at least one row: without an instance where nothing changed.
SELECT head.cursor AS head, head.horizon, page.*
FROM feed_head head
LEFT JOIN (
    (
        SELECT FALSE AS removed, item.* FROM instance_items item
        WHERE
            cursor > %(since)s AND cursor <= (SELECT cursor FROM feed_head)
            AND (%(app)s::text IS NULL OR app_slug = %(app)s OR left_slug = %(app)s)
        ORDER BY cursor
        LIMIT %(most)s::bigint
    )
    UNION ALL
    (
        SELECT
            TRUE, instance_id, NULL, app_slug, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, left_slug,
            cursor
        FROM removals
        WHERE
            cursor > %(since)s AND cursor <= (SELECT cursor FROM feed_head)
            AND (%(app)s::text IS NULL OR app_slug = %(app)s OR left_slug = %(app)s)
        ORDER BY cursor
        LIMIT %(most)s::bigint
    )
    ORDER BY cursor
    LIMIT %(most)s::bigint
) page ON TRUE
ORDER BY page.cursor;

-- name: forget_removals
-- Forgets removals that are older than the feed's memory, the oldest first, and moves the horizon.
SELECT pg_advisory_xact_lock(1397247234);
WITH old AS (
    DELETE FROM removals WHERE cursor = ANY(ARRAY(
        SELECT cursor FROM removals WHERE removed_at < now() - %(memory)s::interval ORDER BY cursor LIMIT %(most)s
    ))
    RETURNING cursor
)
UPDATE feed_head SET horizon = greatest(horizon, (SELECT max(cursor) FROM old))
WHERE EXISTS (SELECT FROM old)
RETURNING horizon;
