-- What lists sort versions by, computed by the server (shm/core/releases.py). Ranks are compared by code points.
-- Instances of an earlier release have none until their next version; `shm check --repair` gives them theirs.
ALTER TABLE instances ADD COLUMN version_rank text COLLATE "C" NOT NULL DEFAULT '';

DROP VIEW instance_items;

-- An instance as the API and the feed show it.
CREATE VIEW instance_items AS
SELECT
    instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
    first_seen_at, snapshot_at, counted, metrics, version_rank, cursor
FROM instances;
