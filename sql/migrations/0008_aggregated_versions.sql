-- A limit of the versions of an application that are aggregated, as there is one of keys and values.

-- The versions of an application that are aggregated. The first snapshot with a version adds it, until the application
-- has SHM_MAX_VERSIONS of them. Instances with later ones are counted together, as other versions.
CREATE TABLE aggregated_versions (
    app_slug text NOT NULL,
    app_version text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app_slug, app_version)
);

-- What has been aggregated until now stays so.
INSERT INTO aggregated_versions (app_slug, app_version)
SELECT app_slug, value FROM tallies WHERE metric_type = 'version'
UNION
SELECT app_slug, value FROM series_hours WHERE metric_type = 'version'
UNION
SELECT app_slug, value FROM series_days WHERE metric_type = 'version';

-- `version_refused`: the version was beyond the limit when the snapshot was stored. In `tallies` and in the series such an
-- instance is in the row of the `metric_type` other_versions, which has no value, and in no row of the type version.
ALTER TABLE instances ADD COLUMN version_refused boolean NOT NULL DEFAULT FALSE;

ALTER TABLE snapshots ADD COLUMN version_refused boolean NOT NULL DEFAULT FALSE;

-- `app_version` is null for a version that is not aggregated.
CREATE OR REPLACE VIEW instance_states AS
SELECT
    instance_id, app_slug, CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version, environment, status,
    counted, elapsed_windows, reporting, first_seen_at, last_seen_at, snapshot_at, coalesce(leaves, metrics) AS leaves,
    refresh_at
FROM instances;
