-- A token has a name of its own that is no secret, `id`, so that it can be listed and removed. It may have an end. Of its
-- use only the day is known: what happened when is the business of whoever holds it.
UPDATE tokens SET name = 'unnamed' WHERE name = '';

UPDATE tokens SET name = left(name, 100) WHERE length(name) > 100;

ALTER TABLE tokens
    ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_on date,
    ADD CONSTRAINT tokens_name_length CHECK (length(name) BETWEEN 1 AND 100);

CREATE UNIQUE INDEX tokens_by_id ON tokens (id);
