-- The audit trail of what admins change.

-- name: record
-- Adds an entry.
INSERT INTO audit (token_id, action, target, details)
VALUES (%(token_id)s, %(action)s, %(target)s, %(details)s::jsonb);

-- name: select_page
-- Entries, newest first. `after_at` and `after_id` are those of the last one of the page before.
SELECT id::text AS id, at, token_id::text AS token_id, action, target, details
FROM audit
WHERE %(after_id)s::uuid IS NULL OR (at, id) < (%(after_at)s::timestamptz, %(after_id)s::uuid)
ORDER BY at DESC, id DESC
LIMIT %(limit)s;

-- name: delete_old
-- Deletes entries that are older than `retention`, the oldest first.
DELETE FROM audit WHERE id = ANY(ARRAY(
    SELECT id FROM audit WHERE at < now() - %(retention)s::interval ORDER BY at LIMIT %(limit)s
));
