-- What the counted words mean on this database, one row. The server's start writes it from its settings, and every
-- statement reads it from here, so that all servers on one database mean the same. `lapses` are a day, a week, 30 days
-- and the active window, the shortest first.
CREATE TABLE definitions (
    active_window interval NOT NULL,
    uncounted text[] NOT NULL,
    lapses interval[] NOT NULL
);

INSERT INTO definitions (active_window, uncounted, lapses)
VALUES ('30 days', '{ci,dev,development,local,test,testing}', '{1 day,7 days,30 days,30 days}');

-- The leaves of a metrics object that are aggregated, nested keys joined by dots: what `leaves` must be, from raw.
CREATE FUNCTION flattened(metrics jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
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

-- How an instance stands in `tallies`: it is counted in the headline or not, this many of `lapses` have passed since it
-- was last seen (of an active one), its current snapshot is in the KPIs or not. Whoever changes one of these, or what
-- they hang on, changes the tallies in the same statement. `due_at` is when time alone will change them.
-- `leaves` is null where it is `metrics` itself, as it is of most installs.
ALTER TABLE instances
    ADD COLUMN counted boolean NOT NULL DEFAULT TRUE,
    ADD COLUMN lapsed smallint NOT NULL DEFAULT 0,
    ADD COLUMN reporting boolean NOT NULL DEFAULT FALSE,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN revoked_at timestamptz,
    ALTER COLUMN leaves DROP NOT NULL,
    ALTER COLUMN leaves DROP DEFAULT;

DROP VIEW instance_items;

UPDATE instances SET
    leaves = nullif(leaves, metrics),
    due_at = '-infinity',
    counted = lower(environment) <> ALL('{ci,dev,development,local,test,testing}'::text[])
        AND leaves -> 'sys_ephemeral' IS DISTINCT FROM 'true'::jsonb,
    revoked_at = CASE WHEN status = 'revoked' THEN coalesce(last_seen_at, registered_at) END;

CREATE INDEX instances_due ON instances (due_at) WHERE due_at IS NOT NULL;

-- An instance as the API and the feed show it.
CREATE VIEW instance_items AS
SELECT
    instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
    first_seen_at, snapshot_at, counted, metrics, left_slug, cursor
FROM instances;

-- What a change of an instance needs to know of it, for the tallies.
CREATE VIEW standings AS
SELECT
    instance_id, app_slug, app_version, environment, status, counted, lapsed, reporting, first_seen_at, last_seen_at,
    snapshot_at, coalesce(leaves, metrics) AS leaves, due_at
FROM instances;

-- Sums over instances, kept by the statements that change them. By `sort`:
--   status   instances by status (key) and how many lapses have passed (value)
--   new      instances by the hour (key, in UTC) in which they were first seen
--   number   a metric over the current snapshots: the sum in total
--   boolean  the same: how many say true in total
--   string   instances that say a value; `strings` how many have answered with any
--   version  instances with a current snapshot by version (value)
-- `counted_…` is the part of it that is counted in the headline.
CREATE TABLE tallies (
    app_slug text NOT NULL,
    sort text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    counted_total numeric NOT NULL,
    counted_instances bigint NOT NULL,
    PRIMARY KEY (app_slug, sort, key, value)
) WITH (fillfactor = 50);

CREATE INDEX tallies_by_frequency ON tallies (app_slug, key, instances DESC, value) WHERE sort = 'string';

CREATE INDEX tallies_by_counted_frequency ON tallies (app_slug, key, counted_instances DESC, value)
    WHERE sort = 'string';

CREATE INDEX tallies_by_sort ON tallies (sort, key, app_slug) WHERE sort <> 'string';

CREATE INDEX tallies_spent ON tallies (app_slug) WHERE instances = 0;

INSERT INTO tallies (app_slug, sort, key, value, total, instances, counted_total, counted_instances)
SELECT app_slug, 'status', status, '0', 0, count(*), 0, count(*) FILTER (WHERE counted)
FROM instances
GROUP BY app_slug, status
UNION ALL
SELECT
    app_slug, 'new', to_char(first_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24'), '', 0, count(*), 0,
    count(*) FILTER (WHERE counted)
FROM instances
WHERE first_seen_at IS NOT NULL
GROUP BY 1, 3;

-- Times that an active instance was not seen for longer than the active window, and then was seen again.
CREATE TABLE absences (
    instance_id uuid NOT NULL,
    lost_at timestamptz NOT NULL,
    returned_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, lost_at)
);

-- The spread of a metric's values over an application's current snapshots, as it was at `as_of`: computed aside for
-- fleets that are too large to be sorted while somebody waits.
CREATE TABLE spreads (
    app_slug text NOT NULL,
    counted_only boolean NOT NULL,
    key text NOT NULL,
    instances bigint NOT NULL,
    least numeric,
    p50 numeric,
    p90 numeric,
    most numeric,
    as_of timestamptz NOT NULL,
    PRIMARY KEY (app_slug, counted_only, key)
);

-- What the vendor says of an application's metrics: for each key its kind, aggregate, label, unit, or that it is hidden;
-- and which of them anybody may see.
ALTER TABLE applications
    ADD COLUMN overrides jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN public_metrics text[] NOT NULL DEFAULT '{}';
