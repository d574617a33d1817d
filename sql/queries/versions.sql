-- name: count_spellings
-- Every version of an application in the spelling of the installs, and the number of installs that ever reported it.
SELECT app_version AS version, count(*) AS installs FROM versions_seen WHERE app_slug = %(app)s GROUP BY app_version;

-- name: measure_adoption
-- For each release of an application: the time at which an install first reported it, and the number of installs that
-- have reported it. For the installs that existed before the release: the number that moved to it, and the number of
-- days after which half of these had moved. `spellings` are versions that are shown under another spelling of their
-- release; `releases` are these other spellings. The statement reads one row for each install and version.
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
