-- Administration: what the API shows of an instance.

-- An instance as the API and the feed show it. `counted`: whether the headline counts it, so it is active and neither
-- pending nor revoked nor silent for longer than the active window. The column of the table is only about its environment.
CREATE OR REPLACE VIEW instance_items AS
SELECT
    instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
    first_seen_at, snapshot_at,
    counted AND status = 'active'
    AND coalesce(last_seen_at + (SELECT active_window FROM settings) > now(), FALSE) AS counted,
    metrics, version_rank, cursor
FROM instances;

-- What admins changed, kept for a year. `token_id` is the token of the request; null: a command on the database. `target` is
-- an application's slug, a token's ID, or the first 8 digits of an instance's ID, which identify nobody.
CREATE TABLE audit (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT now(),
    token_id uuid,
    action text NOT NULL,
    target text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX audit_by_time ON audit (at, id);

-- Changes of many instances, which a background job carries out page by page, in the order of their IDs. `filter` has the
-- parameters of the part `instance_filter`. `after_id` is the last instance that was processed. `into_slug` is the
-- application that instances move to. `removes_application`: the application is deleted once it has no instances.
CREATE TABLE bulk_changes (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    action text NOT NULL CHECK (action IN ('approve', 'revoke', 'delete', 'move')),
    filter jsonb NOT NULL,
    into_slug text,
    removes_application boolean NOT NULL DEFAULT FALSE,
    instances bigint NOT NULL,
    processed bigint NOT NULL DEFAULT 0,
    after_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

CREATE INDEX bulk_changes_unfinished ON bulk_changes (created_at, id) WHERE finished_at IS NULL;

CREATE INDEX bulk_changes_by_time ON bulk_changes (created_at, id);

-- Names under which installs register with another application: after a merge or a change of name. `slug` is that of the
-- name that installs send.
CREATE TABLE application_aliases (
    slug text PRIMARY KEY,
    app_slug text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX application_aliases_by_application ON application_aliases (app_slug);

-- The keys of all leaves of a metrics object, also of those that are not aggregated.
CREATE FUNCTION leaf_keys(metrics jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
'WITH RECURSIVE walk AS (
    SELECT key, value FROM jsonb_each(metrics)
    UNION ALL
    SELECT w.key || ''.'' || e.key, e.value
    FROM walk w
    CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(w.value) WHEN ''object'' THEN w.value ELSE ''{}'' END) e
)
SELECT coalesce(array_agg(key), ''{}'') FROM walk WHERE jsonb_typeof(value) <> ''object''';

-- Applications with overrides, which lists look up for hidden metrics. Strangers may create many others.
CREATE INDEX applications_with_overrides ON applications (slug) WHERE overrides <> '{}';
