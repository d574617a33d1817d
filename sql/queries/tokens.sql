-- name: select_principals (prepared)
-- What the bearers of these tokens may do; none for a token that is unknown or has ended. `noted`: that it is used today
-- is known.
SELECT token_hash, id::text AS id, role, last_used_on IS NOT DISTINCT FROM current_date AS noted
FROM tokens
WHERE token_hash = ANY(%(token_hashes)s::bytea[]) AND (expires_at IS NULL OR expires_at > now());

-- name: record_use
-- Writes down that these tokens are used today; once a day, whichever of the servers comes first.
UPDATE tokens SET last_used_on = current_date
WHERE id = ANY(%(ids)s::uuid[]) AND last_used_on IS DISTINCT FROM current_date;

-- name: delete_others_of_name
-- Ends the tokens of a name that are not this one.
DELETE FROM tokens WHERE name = %(name)s AND token_hash <> %(token_hash)s;

-- name: upsert
-- Makes a token valid, without an end, whatever it was before.
INSERT INTO tokens (token_hash, role, name) VALUES (%(token_hash)s, %(role)s, %(name)s)
ON CONFLICT (token_hash) DO UPDATE SET role = excluded.role, name = excluded.name, expires_at = NULL
WHERE (tokens.role, tokens.name) <> (excluded.role, excluded.name) OR tokens.expires_at IS NOT NULL;

-- name: insert
-- A new token, unless there are as many as there may be: then none. Requests of the same moment do not see each other, so
-- a few more than that may come to be, at most as many as there are connections. Tried again, it adds nothing.
WITH added AS (
    INSERT INTO tokens (token_hash, role, name, expires_at)
    SELECT %(token_hash)s::bytea, %(role)s::text, %(name)s::text, now() + %(expires_in)s::interval
    WHERE (SELECT count(*) FROM tokens) < %(limit)s::bigint
    ON CONFLICT (token_hash) DO NOTHING
    RETURNING *
)
SELECT id::text AS id, name, role, created_at, expires_at, last_used_on
FROM (SELECT * FROM added UNION ALL SELECT * FROM tokens WHERE token_hash = %(token_hash)s) token;

-- name: select_page
-- A page of tokens, newest first. `after_created` and `after_id` are the last row's of the page before.
SELECT id::text AS id, name, role, created_at, expires_at, last_used_on
FROM tokens
WHERE %(after_id)s::uuid IS NULL OR (created_at, id) < (%(after_created)s::timestamptz, %(after_id)s::uuid)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s::bigint;

-- name: select_by_id
-- The token of an ID.
SELECT id::text AS id, name, role, created_at, expires_at, last_used_on FROM tokens WHERE id = %(id)s;

-- name: delete
-- Ends a token. Tried again, it finds nothing to do.
DELETE FROM tokens WHERE id = %(id)s;
