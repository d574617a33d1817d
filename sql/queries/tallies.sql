-- name: delete_zero_rows
-- Deletes tallies that have become zero, such as those of values that no instance sends any more.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM tallies
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM tallies
    WHERE instances = 0 AND total = 0 AND counted_instances = 0 AND counted_total = 0
    LIMIT %(limit)s
))
RETURNING 1 AS deleted;
