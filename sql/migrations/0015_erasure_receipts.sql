-- Receipts of erasures, by the hash of the ID. A row is inserted when an erasure begins and counts what each page
-- deletes, so a receipt is complete whichever processes took part, and all requests for one erasure get the same one.
-- `signed_at`: the newest time of a request for this erasure. `erased_at`: the time at which the instance was deleted.
-- A row is deleted some minutes after that.
CREATE TABLE erasure_receipts (
    id_hash bytea PRIMARY KEY,
    key_hash bytea NOT NULL,
    app_name text NOT NULL,
    signed_at timestamptz,
    snapshots bigint NOT NULL DEFAULT 0,
    oldest_snapshot_at timestamptz,
    newest_snapshot_at timestamptz,
    erased_at timestamptz
);

CREATE INDEX erasure_receipts_by_time ON erasure_receipts (erased_at) WHERE erased_at IS NOT NULL;
