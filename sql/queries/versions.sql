-- name: count_spellings
-- Every version of an application as installs spell it, and how many installs ever reported it.
SELECT app_version AS version, count(*) AS installs FROM versions_seen WHERE app_slug = %(app)s GROUP BY app_version;

-- name: measure_adoption
-- For each release of an application: when an install first reported it, how many have, and of those that were there
-- before it was, how many moved to it and after how many days half of them had. `spellings` are versions that are shown
-- as another spelling of their release, `releases`. The statement reads a row for each install and version.
WITH seen AS MATERIALIZED (
    SELECT
        v.instance_id, coalesce(s.release, v.app_version) AS app_version, min(v.first_at) AS first_at,
        min(min(v.first_at)) OVER (PARTITION BY v.instance_id) AS known_since
    FROM versions_seen v
    LEFT JOIN unnest(%(spellings)s::text[], %(releases)s::text[]) s (spelling, release) ON s.spelling = v.app_version
    WHERE v.app_slug = %(app)s
    GROUP BY v.instance_id, coalesce(s.release, v.app_version)
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
LIMIT %(limit)s;
