-- What the vendor ships. A row comes to be when the first instance of that name proves its key.
CREATE TABLE applications (
    slug text PRIMARY KEY,
    name text NOT NULL,
    github_url text,
    logo_url text,
    stars integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- One install each, with its current snapshot. What an unsigned register says of a known instance waits in `staged`.
-- `metrics` is the object as it was sent; `leaves` its leaves that are aggregated, nested keys joined by dots.
-- `left_slug` is the application that the instance belonged to before, if it ever went to another one.
-- `cursor` is the change feed's number of the row's newest state.
CREATE TABLE instances (
    instance_id uuid PRIMARY KEY,
    public_key bytea NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'active', 'revoked')),
    app_slug text NOT NULL,
    app_name text NOT NULL,
    app_version text NOT NULL,
    environment text NOT NULL,
    deployment_mode text NOT NULL,
    os_arch text NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    first_seen_at timestamptz,
    last_seen_at timestamptz,
    snapshot_at timestamptz,
    metrics jsonb NOT NULL DEFAULT '{}',
    leaves jsonb NOT NULL DEFAULT '{}',
    staged jsonb,
    left_slug text,
    cursor bigint NOT NULL
);

CREATE INDEX instances_by_cursor ON instances (cursor);

CREATE INDEX instances_by_last_seen ON instances (coalesce(last_seen_at, '-infinity'), instance_id);

CREATE INDEX instances_by_application ON instances (app_slug, coalesce(last_seen_at, '-infinity'), instance_id);

-- Every snapshot that was acknowledged, as it was sent. The first one of an instant wins.
CREATE TABLE snapshots (
    instance_id uuid NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    snapshot_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    app_version text,
    sequence bigint,
    metrics jsonb NOT NULL,
    PRIMARY KEY (instance_id, snapshot_at)
);

-- One row: the newest cursor that was given to a change. Every writing statement moves it, under the writers' lock, so
-- whoever reads it knows that all changes up to it are there to be seen.
CREATE TABLE feed_head (
    cursor bigint NOT NULL
);

INSERT INTO feed_head (cursor) VALUES (0);

-- Who may read and who may change. A token is stored as its SHA-256.
CREATE TABLE tokens (
    token_hash bytea PRIMARY KEY,
    role text NOT NULL CHECK (role IN ('viewer', 'admin')),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- An instance as the API and the feed show it.
CREATE VIEW instance_items AS
SELECT
    i.instance_id,
    i.app_name,
    i.app_slug,
    i.app_version,
    i.environment,
    i.status,
    i.last_seen_at,
    i.deployment_mode,
    i.os_arch,
    i.first_seen_at,
    i.snapshot_at,
    coalesce(i.leaves -> 'sys_ephemeral' = 'true'::jsonb, FALSE) AS ephemeral,
    i.metrics,
    i.left_slug,
    i.cursor
FROM instances i;
