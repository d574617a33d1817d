-- name: select_principals (prepared)
-- Role and ID of the bearers of these tokens; no row for a token that is unknown or has expired. `is_use_recorded`:
-- whether today's use is recorded.
SELECT token_hash, id::text AS id, role, last_used_on IS NOT DISTINCT FROM current_date AS is_use_recorded
FROM tokens
WHERE token_hash = ANY(%(token_hashes)s::bytea[]) AND (expires_at IS NULL OR expires_at > now());

-- name: select_hashes
-- The hashes of all valid tokens, a few more than SHM_MAX_TOKENS at most.
SELECT token_hash FROM tokens WHERE expires_at IS NULL OR expires_at > now() LIMIT %(limit)s;

-- name: record_use
-- Records that these tokens are used today; once a day, by the first server that does.
UPDATE tokens SET last_used_on = current_date
WHERE id = ANY(%(ids)s::uuid[]) AND last_used_on IS DISTINCT FROM current_date;

-- name: delete_others_of_name
-- Deletes the tokens of a name but this one.
DELETE FROM tokens WHERE name = %(name)s AND token_hash <> %(token_hash)s;

-- name: upsert
-- Inserts a token without expiry. An existing one gets the role and the name, and loses its expiry.
INSERT INTO tokens (token_hash, role, name) VALUES (%(token_hash)s, %(role)s, %(name)s)
ON CONFLICT (token_hash) DO UPDATE SET role = excluded.role, name = excluded.name, expires_at = NULL
WHERE (tokens.role, tokens.name) <> (excluded.role, excluded.name) OR tokens.expires_at IS NOT NULL;

-- name: insert
-- Inserts a token, unless the maximum number exists: then no row. Concurrent requests do not see each other, so the
-- maximum may be exceeded by at most the number of connections. A repetition inserts nothing.
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
-- A page of tokens, newest first. `after_created` and `after_id` are those of the last row of the page before.
SELECT id::text AS id, name, role, created_at, expires_at, last_used_on
FROM tokens
WHERE %(after_id)s::uuid IS NULL OR (created_at, id) < (%(after_created)s::timestamptz, %(after_id)s::uuid)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s::bigint;

-- name: select_by_id
-- The token of an ID.
SELECT id::text AS id, name, role, created_at, expires_at, last_used_on FROM tokens WHERE id = %(id)s;

-- name: rotate
-- Replaces the secret of a token; the old one is invalid at once. With `old_hash`, only if that is the present one.
UPDATE tokens SET token_hash = %(token_hash)s, last_used_on = NULL
WHERE id = %(id)s AND (%(old_hash)s::bytea IS NULL OR token_hash IN (%(old_hash)s, %(token_hash)s))
RETURNING id::text AS id, name, role, created_at, expires_at, last_used_on;

-- name: delete
-- Deletes a token. A repetition has no effect.
DELETE FROM tokens WHERE id = %(id)s;
