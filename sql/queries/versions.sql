-- name: moves
-- For each version of an application: when an install first reported it, how many have, and of those that were there
-- before it was, how many moved to it and after how many days half of them had. It reads a row for each install and
-- version.
WITH seen AS MATERIALIZED (
    SELECT instance_id, app_version, first_at, min(first_at) OVER (PARTITION BY instance_id) AS known_since
    FROM versions_seen
    WHERE app_slug = %(app)s
),
born AS (
    SELECT app_version, min(first_at) AS first_at, count(*) AS installs FROM seen GROUP BY app_version
),
moved AS (
    SELECT s.app_version, extract(epoch FROM s.first_at - b.first_at)::float8 / 86400 AS days
    FROM seen s
    JOIN born b USING (app_version)
    WHERE s.known_since < b.first_at
)
SELECT
    b.app_version AS version, b.first_at, b.installs, count(m.days) AS moved,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY m.days) AS median_days
FROM born b
LEFT JOIN moved m USING (app_version)
GROUP BY b.app_version, b.first_at, b.installs
ORDER BY b.first_at DESC, b.app_version
LIMIT %(most)s;
