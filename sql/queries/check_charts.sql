-- The comparison of the charts with the raw snapshots, one statement like those in check.sql.

-- name: select_settings
-- The active window, and whether the series were computed with another one.
SELECT settings.active_window, h.stale FROM settings CROSS JOIN series_head h;

-- name: series
-- Hours and closed days whose values are not those of the rolled-up raw snapshots. If raw snapshots have been dropped,
-- the comparison begins at the first midnight at which none of them counts any more (`since`). The run of each of them
-- ended within the active window, so all snapshots that count later are stored. The hour that ends at this midnight is
-- corrected so that the days before it, plus the hours, result in the days that can be verified. Otherwise the error of
-- the days before would be in every value of a chart that begins before this midnight.
-- `hours` has a definition of its own: in a long history nearly every run has its own pair of hours, so beginnings and ends
-- are summed apart, each by hour. The sums of all pairs would be as many as the leaves of the runs and not fit into memory.
WITH
-- use: raw_history
reach AS MATERIALIZED (
    SELECT
        greatest(head.frozen_until, date_trunc(
            'day', raw_history.since + %(active_window)s::interval + interval '1 day' - interval '1 microsecond', 'UTC'
        )) AS since,
        head.*
    FROM raw_history
    CROSS JOIN series_head head
),
revocations AS MATERIALIZED (
    SELECT instance_id, revoked_at FROM instances WHERE revoked_at IS NOT NULL
),
runs AS MATERIALIZED (
    SELECT
        s.app_slug, coalesce(s.leaves, s.metrics) AS leaves,
        CASE WHEN s.version_refused THEN NULL ELSE s.app_version END AS app_version,
        date_trunc('hour', s.snapshot_at + interval '1 hour' - interval '1 microsecond') AS starts_at,
        date_trunc('hour', least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + %(active_window)s::interval,
            r.revoked_at
        ) + interval '1 hour' - interval '1 microsecond') AS ends_at
    FROM snapshots s
    LEFT JOIN revocations r ON r.instance_id = s.instance_id
    WHERE s.cursor <= (SELECT cursor FROM reach)
),
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
joint AS MATERIALIZED (
    SELECT since AS at FROM reach
    WHERE since > frozen_until AND since <= closed_until AND hours_since <= since - interval '1 day'
),
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
        WHERE at > (SELECT since FROM reach) AND at >= (SELECT hours_since FROM reach)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM hours
        WHERE at > (SELECT since FROM reach) AND at >= (SELECT hours_since FROM reach)
        UNION ALL
        SELECT 'series_days', app_slug, metric_type, key, value, at, total, instances, 0, 0
        FROM series_days
        WHERE at >= (SELECT since FROM reach)
        UNION ALL
        SELECT 'series_days', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM days
        WHERE at >= (SELECT since FROM reach)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, total, instances, 0, 0
        FROM series_hours
        WHERE at = (SELECT at FROM joint)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at, 0, 0, total, instances
        FROM days
        WHERE at = (SELECT at FROM joint)
        UNION ALL
        SELECT 'series_hours', app_slug, metric_type, key, value, at + interval '1 day', 0, 0, -total, -instances
        FROM series_days
        WHERE at = (SELECT at - interval '1 day' FROM joint)
        UNION ALL
        SELECT 'series_hours', s.app_slug, s.metric_type, s.key, s.value, joint.at, 0, 0, -s.total, -s.instances
        FROM joint
        JOIN series_hours s ON s.at > joint.at - interval '1 day' AND s.at < joint.at
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
