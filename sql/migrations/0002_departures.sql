-- Instances that are gone, erased or never proven. The feed tells of each up to its horizon, and then it is forgotten.
CREATE TABLE removals (
    cursor bigint PRIMARY KEY,
    instance_id uuid NOT NULL,
    app_slug text NOT NULL,
    left_slug text,
    removed_at timestamptz NOT NULL DEFAULT now()
);

-- The newest cursor whose removal has been forgotten: whoever stands before it has missed something.
ALTER TABLE feed_head ADD COLUMN horizon bigint NOT NULL DEFAULT 0;

CREATE INDEX instances_never_proven ON instances (registered_at) WHERE status = 'pending' AND first_seen_at IS NULL;
