-- Registrations and confirmed keys in batches.

-- `request_id`: the request that carried the action out. Its statement is repeated after a lost connection, and must not
-- take its own action for another one. Null: carried out by a release that did not store it.
ALTER TABLE signed_actions ADD COLUMN request_id uuid;
