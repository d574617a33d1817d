-- name: head
-- The newest cursor that was given to a change.
SELECT cursor FROM feed_head;

-- name: changes
-- Instances that changed after a cursor (of an application: also those that left it), in the order of their newest change, and the cursor up to which one has now
-- looked. Always at least one row: without an instance where nothing changed.
SELECT head.cursor AS head, page.*
FROM feed_head head
LEFT JOIN (
    SELECT * FROM instance_items
    WHERE cursor > %(since)s AND (%(app)s::text IS NULL OR app_slug = %(app)s OR left_slug = %(app)s)
    ORDER BY cursor
    LIMIT %(most)s::bigint
) page ON TRUE
ORDER BY page.cursor;
