-- name: role (prepared)
-- What the bearer of a token may do.
SELECT role FROM tokens WHERE token_hash = %(token_hash)s;

-- name: forget_others
-- Ends the tokens of a name that are not this one.
DELETE FROM tokens WHERE name = %(name)s AND token_hash <> %(token_hash)s;

-- name: ensure
-- Makes a token valid.
INSERT INTO tokens (token_hash, role, name) VALUES (%(token_hash)s, %(role)s, %(name)s)
ON CONFLICT (token_hash) DO NOTHING;
