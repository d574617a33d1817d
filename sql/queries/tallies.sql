-- name: delete_zero_rows
-- Forgets tallies that have come down to nothing, such as values that no instance says any more.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM tallies
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM tallies
    WHERE instances = 0 AND total = 0 AND counted_instances = 0 AND counted_total = 0
    LIMIT %(limit)s
))
RETURNING 1 AS gone;
