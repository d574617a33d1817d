-- name: count_spellings
-- Every version of an application in the spelling of the installs, and the number of installs that ever reported it.
SELECT app_version AS version, count(*) AS installs FROM versions_seen WHERE app_slug = %(app)s GROUP BY app_version;

-- name: measure_adoption
-- For each release of an application: the time at which an install first reported it, and the number of installs that
-- have reported it. For the installs that existed before the release: the number that moved to it, and the number of
-- days after which half of these had moved. `spellings` are versions that are shown under another spelling of their
-- release; `releases` are these other spellings. The statement reads one row for each install and version.
WITH reports AS MATERIALIZED (
    SELECT
        v.instance_id, coalesce(s.release, v.app_version) AS app_version, min(v.first_at) AS first_at,
        min(min(v.first_at)) OVER (PARTITION BY v.instance_id) AS known_since
    FROM versions_seen v
    LEFT JOIN unnest(%(spellings)s::text[], %(releases)s::text[]) s (spelling, release) ON s.spelling = v.app_version
    WHERE v.app_slug = %(app)s
    GROUP BY v.instance_id, coalesce(s.release, v.app_version)
),
first_reports AS (
    SELECT app_version, min(first_at) AS first_at, count(*) AS installs FROM reports GROUP BY app_version
),
moved AS (
    SELECT r.app_version, extract(epoch FROM r.first_at - f.first_at)::float8 / 86400 AS days
    FROM reports r
    JOIN first_reports f USING (app_version)
    WHERE r.known_since < f.first_at
)
SELECT
    f.app_version AS version, f.first_at, f.installs, count(m.days) AS moved,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY m.days) AS median_days
FROM first_reports f
LEFT JOIN moved m USING (app_version)
GROUP BY f.app_version, f.first_at, f.installs
ORDER BY f.first_at DESC, f.app_version
LIMIT %(limit)s;
