-- The comparison of the charts with the raw snapshots: first by sums, then by values, each one statement like those in
-- check.sql.

-- name: select_settings
-- The active window, and whether the series were computed with another one.
SELECT settings.active_window, h.stale FROM settings CROSS JOIN series_head h;

-- name: count_suspects
-- The number of KPIs of which a value in a chart is not that of the raw snapshots. This takes 40 % less CPU than `series`,
-- which computes each value: here each KPI has one sum, in which each hour and each closed day is multiplied by a weight.
-- A weight is a hash of its time with a random seed of this comparison, so different values at several times do not cancel
-- each other out: if any value differs, the sums are equal with a probability of 2^-56. Days have a seed of their own: the
-- hashes of two records that differ in another column only have the same difference at each time.
-- A snapshot counts from one hour's end to another, so its leaves are multiplied by the difference of the weights of both.
-- It counts at each day's end between them. So that this difference also has the weights of these days, the weight of a
-- day is the difference of its hash and that of the next day. `corrected_hour` has a weight of its own.
WITH
-- use: chart_history
weighted AS (
    SELECT r.app_slug, r.leaves, r.app_version, points.weight
    FROM runs r
    CROSS JOIN check_range
    CROSS JOIN LATERAL (
        SELECT
            sum(point.sign * (
-- use: hour_weight
                + CASE
                    WHEN day.at <= check_range.closed_until THEN hash_record_extended(ROW(day.at), %(day_seed)s::bigint) >> 8
                    ELSE 0
                END
                + CASE
                    WHEN point.at <= (SELECT at FROM corrected_hour)
                    THEN hash_record_extended(ROW(0), %(hour_seed)s::bigint) >> 8
                    ELSE 0
                END
            )) AS weight
        FROM (VALUES (r.starts_at, 1), (r.ends_at, -1)) point (at, sign)
        CROSS JOIN LATERAL (
            SELECT greatest(
                date_trunc('day', point.at + interval '1 day' - interval '1 microsecond', 'UTC'), check_range.since
            )
        ) day (at)
    ) points
    WHERE r.starts_at < r.ends_at
    OFFSET 0
),
stored AS (
    SELECT
        point.app_slug, point.metric_type, point.key, point.value, point.total, point.instances,
-- use: hour_weight
        + CASE
            WHEN point.at > corrected_hour.at - interval '1 day' AND point.at <= corrected_hour.at
            THEN hash_record_extended(ROW(0), %(hour_seed)s::bigint) >> 8
            ELSE 0
        END AS weight
    FROM series_hours point
    CROSS JOIN check_range
    LEFT JOIN corrected_hour ON TRUE
    UNION ALL
    SELECT
        point.app_slug, point.metric_type, point.key, point.value, point.total, point.instances,
        CASE
            WHEN point.at >= check_range.since
            THEN
                (hash_record_extended(ROW(point.at), %(day_seed)s::bigint) >> 8)
                - CASE
                    WHEN point.at + interval '1 day' <= check_range.closed_until
                    THEN hash_record_extended(ROW(point.at + interval '1 day'), %(day_seed)s::bigint) >> 8
                    ELSE 0
                END
            ELSE 0
        END
        + CASE
            WHEN point.at = corrected_hour.at - interval '1 day'
            THEN hash_record_extended(ROW(0), %(hour_seed)s::bigint) >> 8
            ELSE 0
        END
    FROM series_days point
    CROSS JOIN check_range
    LEFT JOIN corrected_hour ON TRUE
),
sums AS (
    SELECT
        r.app_slug, each.metric_type, each.key, each.value, sum(r.weight * each.total) AS total, sum(r.weight) AS instances
    FROM weighted r
-- use: run_leaves
    GROUP BY r.app_slug, each.metric_type, each.key, each.value
    UNION ALL
    SELECT app_slug, metric_type, key, value, -sum(weight * total), -sum(weight::numeric * instances)
    FROM stored
    GROUP BY app_slug, metric_type, key, value
)
SELECT count(*) AS suspects
FROM (
    SELECT FROM sums
    GROUP BY app_slug, metric_type, key, value
    HAVING sum(total) <> 0 OR sum(instances) <> 0
) unequal;

-- name: series
-- Hours and closed days whose values are not those of the rolled-up raw snapshots. If raw snapshots have been dropped,
-- the comparison begins at the first midnight at which none of them counts any more (`since`). The run of each of them
-- ended within the active window, so all snapshots that count later are stored. The hour that ends at this midnight is
-- corrected so that the days before it, plus the hours, result in the days that can be verified. Otherwise the error of
-- the days before would be in every value of a chart that begins before this midnight.
-- `hours` has a definition of its own: in a long history nearly every run has its own pair of hours, so beginnings and ends
-- are summed separately by hour. The sums of all pairs would be as many as the leaves of the runs and not fit into memory.
WITH
-- use: chart_history
run_sums AS MATERIALIZED (
    SELECT
        r.app_slug, each.metric_type, each.key, each.value, coalesce(r.starts_at, r.ends_at) AS at,
        CASE GROUPING(r.starts_at) WHEN 0 THEN 1 ELSE -1 END AS weight,
        sum(each.total) AS total,
        count(*) AS instances
    FROM runs r
-- use: run_leaves
    WHERE r.starts_at < r.ends_at
    GROUP BY r.app_slug, each.metric_type, each.key, each.value, GROUPING SETS (r.starts_at, r.ends_at)
),
hours AS MATERIALIZED (
    SELECT
        app_slug, metric_type, key, value, at, sum(weight * total) AS total, sum(weight * instances)::bigint AS instances
    FROM run_sums
    GROUP BY app_slug, metric_type, key, value, at
    HAVING sum(weight * total) <> 0 OR sum(weight * instances) <> 0
),
-- use: days
compared AS (
    SELECT
        table_name, app_slug, metric_type, key, value, at,
        sum(total) AS total, sum(instances) AS instances,
        sum(true_total) AS true_total, sum(true_instances) AS true_instances
    FROM (
        SELECT
            'series_hours' AS table_name, app_slug, metric_type, key, value, at,
            total, instances, 0::numeric AS true_total, 0::numeric AS true_instances
        FROM series_hours
        WHERE at > (SELECT since FROM check_range) AND at >= (SELECT hours_since FROM check_range)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM hours
        WHERE at > (SELECT since FROM check_range) AND at >= (SELECT hours_since FROM check_range)
        UNION ALL
        SELECT 'series_days', app_slug, metric_type, key, value, at, total, instances, 0, 0
        FROM series_days
        WHERE at >= (SELECT since FROM check_range)
        UNION ALL
        SELECT 'series_days', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM days
        WHERE at >= (SELECT since FROM check_range)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, total, instances, 0, 0
        FROM series_hours
        WHERE at = (SELECT at FROM corrected_hour)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM days
        WHERE at = (SELECT at FROM corrected_hour)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at + interval '1 day', 0, 0, -total, -instances
        FROM series_days
        WHERE at = (SELECT at - interval '1 day' FROM corrected_hour)
        UNION ALL
        SELECT 'series_hours', s.app_slug, s.metric_type, s.key, s.value, corrected_hour.at, 0, 0, -s.total, -s.instances
        FROM corrected_hour
        JOIN series_hours s ON s.at > corrected_hour.at - interval '1 day' AND s.at < corrected_hour.at
    ) each
    GROUP BY table_name, app_slug, metric_type, key, value, at
    HAVING sum(total) <> sum(true_total) OR sum(instances) <> sum(true_instances)
)
SELECT
    table_name,
    concat_ws(', ', app_slug, metric_type, nullif(key, ''), nullif(value, ''), at) AS row_key,
    concat(trim_scale(total), ' over ', instances) AS actual,
    concat(trim_scale(true_total), ' over ', true_instances) AS expected,
    jsonb_build_object(
        'table_name', table_name, 'app_slug', app_slug, 'metric_type', metric_type, 'key', key, 'value', value, 'at', at,
        'total', true_total - total, 'instances', true_instances - instances,
        'active_window', %(active_window)s::interval
    ) AS repair_row
FROM compared
ORDER BY table_name, app_slug, metric_type, key, value, at;
