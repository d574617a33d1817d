-- Merges that move the past of an application too, and changes of many instances that do not wait for one that fails.

-- `phase`: a merge moves the instances, then their past snapshots with the series, then the rest of the series.
-- `failed`: instances that the present pass over the filter could not change. Another pass follows at `retry_at`, up to a
-- number of `passes`. `error`: the last failure, with the first 8 digits of the instance's ID.
ALTER TABLE bulk_changes
    ADD COLUMN phase text NOT NULL DEFAULT 'instances' CHECK (phase IN ('instances', 'snapshots', 'series')),
    ADD COLUMN failed bigint NOT NULL DEFAULT 0,
    ADD COLUMN passes integer NOT NULL DEFAULT 0,
    ADD COLUMN retry_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN error text;

-- Deletions and revocations that could not be completed, with the last failure. Another attempt follows at `retry_at`.
CREATE TABLE failed_removals (
    instance_id uuid PRIMARY KEY,
    attempts integer NOT NULL,
    error text NOT NULL,
    failed_at timestamptz NOT NULL,
    retry_at timestamptz NOT NULL
);

-- Instances that changed their application: they may have snapshots that they sent for another one.
CREATE INDEX instances_with_earlier_application ON instances (instance_id) WHERE previous_app_slug IS NOT NULL;
