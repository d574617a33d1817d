-- The changes of the series that follow from snapshots.

-- part: run_leaves
-- `each`: what the series sum of a run `r`: its numbers and booleans, and its version.
    CROSS JOIN LATERAL (
        SELECT
            jsonb_typeof(leaf.value) AS metric_type, leaf.key, '' AS value,
            CASE jsonb_typeof(leaf.value)
                WHEN 'number' THEN leaf.value::numeric
                ELSE (leaf.value = 'true'::jsonb)::int
            END AS total
        FROM jsonb_each(r.leaves) leaf
        WHERE jsonb_typeof(leaf.value) <> 'string'
        UNION ALL
        SELECT
            CASE WHEN r.app_version IS NULL THEN 'other_versions' ELSE 'version' END, '', coalesce(r.app_version, ''), 0
    ) each

-- part: hours
-- `hours`: the changes of KPIs at hours' ends that follow from `runs`. A run is a snapshot with the end of its
-- validity, before this statement (`was_rolled`: in the series, `ended_at`) and after it (`is_rolled`, `ends_at`).
-- Leaves are summed over the runs with the same points first, because most runs share theirs with many others, and each
-- has several.
hourly_runs AS (
    SELECT *, was_rolled AND first < old_end AS had_points, is_rolled AND first < new_end AS has_points
    FROM (
        SELECT
            app_slug, app_version, leaves, was_rolled, is_rolled,
            date_trunc('hour', starts_at + interval '1 hour' - interval '1 microsecond') AS first,
            date_trunc('hour', ended_at + interval '1 hour' - interval '1 microsecond') AS old_end,
            date_trunc('hour', ends_at + interval '1 hour' - interval '1 microsecond') AS new_end
        FROM runs
    ) each
),
run_sums AS (
    SELECT
        r.app_slug, each.metric_type, each.key, each.value, r.first, r.old_end, r.new_end, r.had_points, r.has_points,
        sum(each.total) AS total,
        count(*) AS instances
    FROM hourly_runs r
-- use: run_leaves
    WHERE r.had_points <> r.has_points OR (r.has_points AND r.old_end <> r.new_end)
    GROUP BY
        r.app_slug, each.metric_type, each.key, each.value, r.first, r.old_end, r.new_end, r.had_points, r.has_points
),
hours AS MATERIALIZED (
    SELECT
        r.app_slug, r.metric_type, r.key, r.value, p.at, sum(p.weight * r.total) AS total,
        sum(p.weight * r.instances)::bigint AS instances
    FROM run_sums r
    CROSS JOIN LATERAL (
        VALUES
            (r.first, r.has_points::int - r.had_points::int),
            (r.old_end, CASE WHEN r.had_points AND (NOT r.has_points OR r.old_end <> r.new_end) THEN 1 ELSE 0 END),
            (r.new_end, CASE WHEN r.has_points AND (NOT r.had_points OR r.old_end <> r.new_end) THEN -1 ELSE 0 END)
    ) p (at, weight)
    WHERE p.weight <> 0
    GROUP BY r.app_slug, r.metric_type, r.key, r.value, p.at
    HAVING sum(p.weight * r.total) <> 0 OR sum(p.weight * r.instances) <> 0
),

-- part: days
-- `days`: the changes of the KPIs at the ends of closed days that follow from `hours`.
since_days AS (
    SELECT
        app_slug, metric_type, key, value, day,
        sum(sum(total)) OVER by_day AS total,
        sum(sum(instances)) OVER by_day AS instances,
        lead(day) OVER by_day AS next_day
    FROM (
        SELECT *, date_trunc('day', at + interval '1 day' - interval '1 microsecond') AS day FROM hours
    ) each
    GROUP BY app_slug, metric_type, key, value, day
    WINDOW by_day AS (PARTITION BY app_slug, metric_type, key, value ORDER BY day)
),
days AS MATERIALIZED (
    SELECT s.app_slug, s.metric_type, s.key, s.value, d.day AS at, s.total, s.instances
    FROM since_days s
    CROSS JOIN LATERAL generate_series(
        s.day, least(s.next_day - interval '1 day', (SELECT closed_until FROM series_head)), interval '1 day'
    ) d (day)
    WHERE (s.total <> 0 OR s.instances <> 0) AND d.day >= (SELECT frozen_until FROM series_head)
),

-- part: series_updated
-- Adds `hours`, those that are still stored, and `days` to the series. Requires the rollup's lock.
hours_deleted AS (
    SELECT app_slug, metric_type, key, value, at FROM hours WHERE FALSE
),
days_deleted AS (
    SELECT app_slug, metric_type, key, value, at FROM days WHERE FALSE
),
-- use: series_added

-- part: series_reduced
-- The same for snapshots that are deleted: rows that become zero are deleted with them.
hours_deleted AS (
    DELETE FROM series_hours s
    USING hours h
    WHERE
        (s.app_slug, s.metric_type, s.key, s.value, s.at) = (h.app_slug, h.metric_type, h.key, h.value, h.at)
        AND s.total + h.total = 0 AND s.instances + h.instances = 0
    RETURNING s.app_slug, s.metric_type, s.key, s.value, s.at
),
days_deleted AS (
    DELETE FROM series_days s
    USING days d
    WHERE
        (s.app_slug, s.metric_type, s.key, s.value, s.at) = (d.app_slug, d.metric_type, d.key, d.value, d.at)
        AND s.total + d.total = 0 AND s.instances + d.instances = 0
    RETURNING s.app_slug, s.metric_type, s.key, s.value, s.at
),
-- use: series_added

-- part: series_added
-- Adds `hours` and `days` to the series, without the rows that `hours_deleted` and `days_deleted` have deleted.
hours_updated AS (
    INSERT INTO series_hours AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM hours
    WHERE
        at >= (SELECT hours_since FROM series_head)
        AND (app_slug, metric_type, key, value, at) NOT IN (SELECT * FROM hours_deleted)
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),
days_updated AS (
    INSERT INTO series_days AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM days
    WHERE (app_slug, metric_type, key, value, at) NOT IN (SELECT * FROM days_deleted)
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),
