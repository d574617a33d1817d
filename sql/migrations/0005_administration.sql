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
