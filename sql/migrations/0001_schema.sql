-- The schema of the first release. Once that is published, this file is never edited: a change is a new migration.

-- An application that the vendor distributes. The first instance of that name that confirms its key creates the row.
-- `overrides` holds the vendor's settings for metrics, by key: kind, aggregate, label, unit, or that the metric is hidden.
-- `public_metrics` are the keys whose values are shown without a token.
CREATE TABLE applications (
    slug text PRIMARY KEY,
    name text NOT NULL,
    github_url text,
    logo_url text,
    stars integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    overrides jsonb NOT NULL DEFAULT '{}',
    public_metrics text[] NOT NULL DEFAULT '{}'
);

-- The settings that define the KPIs, in one row. A server writes it at its start, and every statement reads it from here,
-- so that all servers on one database use the same definitions. `activity_windows` are a day, a week, 30 days and the
-- active window, in ascending order.
CREATE TABLE settings (
    active_window interval NOT NULL,
    uncounted_environments text[] NOT NULL,
    activity_windows interval[] NOT NULL
);

INSERT INTO settings (active_window, uncounted_environments, activity_windows)
VALUES ('30 days', '{ci,dev,development,local,test,testing}', '{1 day,7 days,30 days,30 days}');

-- The leaves of a metrics object that are aggregated, nested keys joined by dots. It computes from raw metrics what the
-- column `leaves` must hold.
CREATE FUNCTION flatten_metrics(metrics jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
'WITH RECURSIVE walk AS (
    SELECT key, value FROM jsonb_each(metrics)
    UNION ALL
    SELECT w.key || ''.'' || e.key, e.value
    FROM walk w
    CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(w.value) WHEN ''object'' THEN w.value ELSE ''{}'' END) e
)
SELECT coalesce(jsonb_object_agg(key, value), ''{}'')
FROM walk
WHERE jsonb_typeof(value) IN (''number'', ''boolean'')
    OR (jsonb_typeof(value) = ''string'' AND length(value #>> ''{}'') <= 64)';

-- An install with its current snapshot.
-- `staged` is the content of an unsigned registration of a known instance, until a signed request confirms it.
-- `metrics` is the object as it was sent; `leaves` is its flattened form, null where that equals `metrics`, as it does for
-- most installs.
-- `previous_app_slug` is the application that the instance belonged to before, if it ever changed.
-- `cursor` is the change feed's number of the row's newest state.
-- `counted`, `elapsed_windows`, `reporting` decide how `tallies` include the instance: whether the headline counts it, how
-- many of `settings.activity_windows` have elapsed since an active one was last seen, and whether its current snapshot is
-- within the active window. A statement that changes one of these or its inputs updates the tallies too.
-- `refresh_at` is when they next change by the passing of time alone.
-- `version_rank` is the sort key of the version, computed by the server (shm/core/releases.py) and compared by code points.
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
    leaves jsonb,
    staged jsonb,
    previous_app_slug text,
    cursor bigint NOT NULL,
    counted boolean NOT NULL DEFAULT TRUE,
    elapsed_windows smallint NOT NULL DEFAULT 0,
    reporting boolean NOT NULL DEFAULT FALSE,
    refresh_at timestamptz,
    revoked_at timestamptz,
    version_rank text COLLATE "C" NOT NULL DEFAULT ''
);

CREATE INDEX instances_by_cursor ON instances (cursor);

CREATE INDEX instances_by_last_seen ON instances (coalesce(last_seen_at, '-infinity'), instance_id);

CREATE INDEX instances_by_application ON instances (app_slug, coalesce(last_seen_at, '-infinity'), instance_id);

CREATE INDEX instances_unconfirmed ON instances (registered_at) WHERE status = 'pending' AND first_seen_at IS NULL;

CREATE INDEX instances_by_refresh ON instances (refresh_at) WHERE refresh_at IS NOT NULL;

-- An instance as the API and the feed show it.
CREATE VIEW instance_items AS
SELECT
    instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
    first_seen_at, snapshot_at, counted, metrics, version_rank, cursor
FROM instances;

-- The columns of an instance that its tallies depend on.
CREATE VIEW instance_states AS
SELECT
    instance_id, app_slug, app_version, environment, status, counted, elapsed_windows, reporting, first_seen_at,
    last_seen_at, snapshot_at, coalesce(leaves, metrics) AS leaves, refresh_at
FROM instances;

-- Every acknowledged snapshot, as it was sent. Of several with the same time the first one is kept. Partitions are weeks,
-- so that old snapshots are dropped with their week. No foreign key checks `instance_id` again for each row: the statement
-- that stores snapshots joins them with their instances.
-- `leaves` is null where it equals `metrics`; `app_slug` is the application that the snapshot was sent for; `cursor` is the
-- feed's cursor at that time, and the rollup processes snapshots in its order.
CREATE TABLE snapshots (
    instance_id uuid NOT NULL,
    snapshot_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    app_version text NOT NULL,
    sequence bigint,
    metrics jsonb NOT NULL,
    app_slug text NOT NULL,
    leaves jsonb,
    cursor bigint NOT NULL,
    PRIMARY KEY (instance_id, snapshot_at)
) PARTITION BY RANGE (snapshot_at);

CREATE INDEX snapshots_by_cursor ON snapshots (cursor);

-- Everything up to the end of next week; the server creates the later weeks.
CREATE TABLE snapshots_first PARTITION OF snapshots
FOR VALUES FROM (MINVALUE) TO (date_trunc('week', now() + interval '7 days', 'UTC') + interval '7 days');

-- The state of the change feed, in one row. `cursor` is the newest cursor that was assigned to a change. Every statement
-- that assigns one updates this row under the writers' lock, so all changes up to a cursor that was read are visible.
-- `horizon` is the newest cursor whose removal has been deleted: a subscriber with an older cursor has to list again.
CREATE TABLE feed_head (
    cursor bigint NOT NULL,
    horizon bigint NOT NULL DEFAULT 0
);

INSERT INTO feed_head (cursor) VALUES (0);

-- Instances that are no longer in an application: deleted ones, and with `changed_app` those that went to another
-- application. The feed reports each of them; rows older than the feed's memory are deleted.
CREATE TABLE removals (
    cursor bigint PRIMARY KEY,
    instance_id uuid NOT NULL,
    app_slug text NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT now(),
    changed_app boolean NOT NULL DEFAULT FALSE
);

-- Applications whose KPIs have changed since a cursor though no instance did: by a change of the application's own
-- settings, by the passing of time, or by newly computed distributions.
CREATE TABLE app_changes (
    app_slug text PRIMARY KEY,
    cursor bigint NOT NULL
);

CREATE INDEX app_changes_by_cursor ON app_changes (cursor);

-- Bearer tokens of the admin API, stored as SHA-256. `id` is a public identifier, by which a token is listed and deleted.
-- Of its use only the day is stored: times would show when a person works.
CREATE TABLE tokens (
    token_hash bytea PRIMARY KEY,
    role text NOT NULL CHECK (role IN ('viewer', 'admin')),
    name text NOT NULL CONSTRAINT tokens_name_length CHECK (length(name) BETWEEN 1 AND 100),
    created_at timestamptz NOT NULL DEFAULT now(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    expires_at timestamptz,
    last_used_on date
);

CREATE UNIQUE INDEX tokens_by_id ON tokens (id);

-- Sums over instances, updated by the statements that change instances. By `metric_type`:
--   status   instances by status (key) and number of elapsed activity windows (value)
--   new      instances by the hour (key, in UTC) in which they were first seen
--   number   a metric over the current snapshots: `total` is its sum
--   boolean  a metric over the current snapshots: `total` is how many are true
--   string   instances by the value of a metric; a row `strings` counts the instances with any value
--   version  instances with a current snapshot by version (value)
-- The columns `counted_...` are the same sums over the instances that the headline counts.
CREATE TABLE tallies (
    app_slug text NOT NULL,
    metric_type text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    counted_total numeric NOT NULL,
    counted_instances bigint NOT NULL,
    PRIMARY KEY (app_slug, metric_type, key, value)
) WITH (fillfactor = 50);

CREATE INDEX tallies_by_frequency ON tallies (app_slug, key, instances DESC, value) WHERE metric_type = 'string';

CREATE INDEX tallies_by_counted_frequency ON tallies (app_slug, key, counted_instances DESC, value)
    WHERE metric_type = 'string';

CREATE INDEX tallies_by_metric_type ON tallies (metric_type, key, app_slug) WHERE metric_type <> 'string';

CREATE INDEX tallies_without_instances ON tallies (app_slug) WHERE instances = 0;

-- Periods in which an active instance was not seen for longer than the active window, and after which it was seen again.
CREATE TABLE absences (
    instance_id uuid NOT NULL,
    lost_at timestamptz NOT NULL,
    returned_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, lost_at)
);

-- The distribution of a metric's values over an application's current snapshots at `as_of`. It is computed in the
-- background for fleets that are too large to be sorted during a request.
CREATE TABLE distributions (
    app_slug text NOT NULL,
    counted_only boolean NOT NULL,
    key text NOT NULL,
    instances bigint NOT NULL,
    min numeric,
    p50 numeric,
    p90 numeric,
    max numeric,
    as_of timestamptz NOT NULL,
    PRIMARY KEY (app_slug, counted_only, key)
);

-- The state of the rollup, in one row. Snapshots up to `cursor` are in the series; days up to the midnight `closed_until`
-- are closed. `stale`: the whole series must be computed again, because the active window has changed.
-- Snapshots before `raw_since` and hours before `hours_since` have been deleted, so that their absence is no error. Days
-- before `frozen_until` are never recomputed, because the snapshots that they come from have been deleted.
CREATE TABLE series_head (
    cursor bigint NOT NULL,
    closed_until timestamptz NOT NULL,
    stale boolean NOT NULL DEFAULT FALSE,
    raw_since timestamptz NOT NULL DEFAULT '-infinity',
    frozen_until timestamptz NOT NULL DEFAULT '-infinity',
    hours_since timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO series_head (cursor, closed_until) VALUES (0, date_trunc('day', now(), 'UTC'));

-- The change of a KPI at an hour's end: the sum of all rows up to an hour is the KPI's value at its end. A snapshot counts
-- from the first hour's end after it to the last one before the install's next snapshot, at most for the active window;
-- so some rows are in the future. `metric_type` is number, boolean or version, as in `tallies`.
CREATE TABLE series_hours (
    app_slug text NOT NULL,
    metric_type text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    PRIMARY KEY (app_slug, metric_type, key, value, at)
) WITH (fillfactor = 70);

CREATE INDEX series_hours_by_time ON series_hours (at);

-- The value of a KPI at a day's end, midnight UTC, up to `series_head.closed_until`. Rows are kept permanently. A KPI
-- without a row had no value.
CREATE TABLE series_days (
    app_slug text NOT NULL,
    metric_type text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    PRIMARY KEY (app_slug, metric_type, key, value, at)
);

CREATE INDEX series_days_by_time ON series_days (at);

-- When an install first reported a version, for the adoption of releases. The rollup writes it, and it is kept as long as
-- the instance.
CREATE TABLE versions_seen (
    instance_id uuid NOT NULL,
    app_version text NOT NULL,
    app_slug text NOT NULL,
    first_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, app_version)
);

CREATE INDEX versions_seen_by_application ON versions_seen (app_slug);

-- Tables of one row. Without statistics PostgreSQL assumes a thousand rows and plans for a thousand times the work, and
-- autovacuum never analyses a table this small.
ANALYZE settings;

ANALYZE feed_head;

ANALYZE series_head;
