-- Erasure without a long lock, and without a way back for requests that were signed before it.

-- Deleted instances, as hashes of their ID and key with `settings.hash_key`. Requests that such an install signed before
-- it was deleted are refused, and nobody else can register its ID. A row is deleted once every snapshot from before
-- `erased_at` is too old to be accepted.
CREATE TABLE erased_identities (
    id_hash bytea PRIMARY KEY,
    key_hash bytea NOT NULL,
    erased_at timestamptz NOT NULL
);

CREATE INDEX erased_identities_by_time ON erased_identities (erased_at);

-- Signed actions that were carried out, as hashes of their bodies, because each is accepted once. A row is deleted once
-- its timestamp is too old to be accepted.
CREATE TABLE signed_actions (
    action_hash bytea PRIMARY KEY,
    signed_at timestamptz NOT NULL
);

CREATE INDEX signed_actions_by_time ON signed_actions (signed_at);

ALTER TABLE settings ADD COLUMN hash_key bytea;

UPDATE settings SET hash_key = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

ALTER TABLE settings ALTER COLUMN hash_key SET NOT NULL;

-- `erased_at`: an instance with this ID and key was deleted at that time. Requests that were signed before are refused.
-- `erasing_since`: the deletion of this instance has begun. Its snapshots are deleted in pages, and the instance with the
-- last of them; meanwhile all its requests are refused.
ALTER TABLE instances ADD COLUMN erased_at timestamptz, ADD COLUMN erasing_since timestamptz;

CREATE INDEX instances_being_erased ON instances (erasing_since) WHERE erasing_since IS NOT NULL;

-- Revoked instances that are still to be ended in the series.
CREATE INDEX instances_being_revoked ON instances (instance_id) WHERE status = 'revoked' AND revoked_at IS NULL;
