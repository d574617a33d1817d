-- name: select_kpis
-- Every metric of the current snapshots, newer than the active window, of an application's unrevoked instances: one row
-- for each key and type of value (`section`: numbers, flags, categories), from the tallies. `counted_only`: over the
-- counted instances only. The statement always returns one more row (`section`: head), with the feed cursor at which all
-- rows are current, the number of aggregated keys (`total`), and the time of the last key or value beyond the limits, if
-- it was within a week.
WITH
-- use: due_instances
-- use: deltas
current_tallies AS MATERIALIZED (
    SELECT
        metric_type, key,
        sum(CASE WHEN %(counted_only)s::boolean THEN counted_total ELSE total END) AS total,
        sum(CASE WHEN %(counted_only)s::boolean THEN counted_instances ELSE instances END) AS instances
    FROM (
        SELECT metric_type, key, total, instances, counted_total, counted_instances
        FROM tallies
        WHERE app_slug = %(app)s AND metric_type IN ('number', 'boolean', 'strings')
        UNION ALL
        SELECT metric_type, key, total, instances, counted_total, counted_instances
        FROM deltas
        WHERE metric_type IN ('number', 'boolean', 'strings')
    ) each
    GROUP BY metric_type, key
    HAVING sum(CASE WHEN %(counted_only)s::boolean THEN counted_instances ELSE instances END) > 0
),
ranked_keys AS (
    SELECT *, row_number() OVER (PARTITION BY metric_type ORDER BY instances DESC, key) AS key_rank FROM current_tallies
),
string_values AS (
    SELECT
        k.key, v.value,
        v.instances + coalesce(
            CASE WHEN %(counted_only)s::boolean THEN m.counted_instances ELSE m.instances END, 0
        ) AS instances
    FROM ranked_keys k
    CROSS JOIN LATERAL (
        (
            SELECT
                t.value, CASE WHEN %(counted_only)s::boolean THEN t.counted_instances ELSE t.instances END AS instances
            FROM tallies t
            WHERE t.app_slug = %(app)s AND t.metric_type = 'string' AND t.key = k.key
            ORDER BY CASE WHEN %(counted_only)s::boolean THEN t.counted_instances ELSE t.instances END DESC, t.value
            LIMIT %(max_values)s::bigint
                + (SELECT count(*) FROM deltas m WHERE m.metric_type = 'string' AND m.key = k.key)
        )
        UNION -- values that are frequent only with the deltas that no refresh has processed yet
        SELECT
            m.value,
            coalesce(CASE WHEN %(counted_only)s::boolean THEN t.counted_instances ELSE t.instances END, 0)
        FROM deltas m
        LEFT JOIN tallies t
            ON t.app_slug = %(app)s AND t.metric_type = 'string' AND t.key = k.key AND t.value = m.value
        WHERE m.metric_type = 'string' AND m.key = k.key
    ) v
    LEFT JOIN deltas m ON m.metric_type = 'string' AND m.key = k.key AND m.value = v.value
    WHERE k.metric_type = 'strings' AND k.key_rank <= %(max_keys)s::bigint
),
known_distributions AS (
    SELECT key, min, p50, p90, max, as_of FROM distributions
    WHERE app_slug = %(app)s AND counted_only = %(counted_only)s::boolean
),
-- use: kpi_rows

-- name: count_filtered
-- The instances that a filter selects, by status and activity, and those of them whose current snapshots the KPIs are over
-- (`reporting`, `counted_reporting`).
SELECT
    count(*) FILTER (WHERE status <> 'pending' OR first_seen_at IS NOT NULL) AS total,
    count(*) FILTER (WHERE
-- use: is_active
    ) AS active,
    count(*) FILTER (WHERE status = 'pending' AND first_seen_at IS NOT NULL) AS pending,
    count(*) FILTER (WHERE status = 'revoked') AS revoked,
    count(*) FILTER (WHERE
-- use: counted_in_headline
    ) AS counted,
    count(*) FILTER (WHERE status = 'pending' AND first_seen_at IS NULL) AS unproven,
    count(*) FILTER (WHERE
-- use: is_reporting
    ) AS reporting,
    count(*) FILTER (WHERE counted AND
-- use: is_reporting
    ) AS counted_reporting
FROM instances
WHERE
-- use: instance_filter
            AND %(conditions)s::boolean;

-- name: select_filtered
-- The same rows as `select_kpis`, over the instances that a filter selects, without distributions. The statement reads
-- every metric of these instances.
SET LOCAL max_parallel_workers_per_gather = 1;
SET LOCAL parallel_tuple_cost = 0;
WITH filtered AS (
-- use: filtered_leaves
),
summed AS MATERIALIZED (
    SELECT
        key, metric_type, CASE metric_type WHEN 'string' THEN leaf #>> '{}' ELSE '' END AS value,
        sum(CASE metric_type WHEN 'number' THEN leaf::numeric WHEN 'boolean' THEN (leaf = 'true'::jsonb)::int ELSE 0 END)
            AS total,
        count(*) AS instances
    FROM (
        SELECT l.key, l.value AS leaf, jsonb_typeof(l.value) AS metric_type
        FROM filtered f
        CROSS JOIN LATERAL jsonb_each(f.leaves) l
    ) each
    GROUP BY 1, 2, 3
),
ranked_keys AS (
    SELECT *, row_number() OVER (PARTITION BY metric_type ORDER BY instances DESC, key) AS key_rank
    FROM (
        SELECT
            CASE metric_type WHEN 'string' THEN 'strings' ELSE metric_type END AS metric_type, key,
            sum(total) AS total, sum(instances) AS instances
        FROM summed
        WHERE metric_type IN ('number', 'boolean', 'string')
        GROUP BY 1, 2
    ) keys_by_type
),
string_values AS (
    SELECT s.key, s.value, s.instances
    FROM summed s
    JOIN ranked_keys k ON k.metric_type = 'strings' AND k.key = s.key AND k.key_rank <= %(max_keys)s::bigint
    WHERE s.metric_type = 'string'
),
known_distributions AS (
    SELECT key, min, p50, p90, max, as_of FROM distributions WHERE FALSE
),
-- use: kpi_rows

-- name: select_filtered_distributions
-- The distributions of these numbers over the instances that a filter selects.
SET LOCAL work_mem = '64MB';
WITH filtered AS (
-- use: filtered_leaves
),
sorted AS (
    SELECT key, count(*) AS instances, array_agg(value ORDER BY value) AS sorted_values
    FROM (
        SELECT k.key, (f.leaves -> k.key)::numeric AS value
        FROM filtered f
        CROSS JOIN unnest(%(keys)s::text[]) k (key)
        WHERE jsonb_typeof(f.leaves -> k.key) = 'number'
    ) metric_values
    GROUP BY key
)
SELECT
    key, now() AS as_of,
-- use: distribution
FROM sorted;

-- name: select_past
-- The numbers and booleans of an application at a midnight of the past, from the series: those that most instances
-- reported. Of the versions one row has the number of instances that reported at all. Nothing is known within frozen days
-- that are not closed.
WITH head AS MATERIALIZED (
    SELECT least(closed_until, %(at)s::timestamptz) AS base
    FROM series_head
    WHERE %(at)s::timestamptz <= closed_until OR %(at)s::timestamptz >= frozen_until
)
SELECT metric_type, key, trim_scale(sum(total)) AS total, sum(instances) AS instances
FROM (
    SELECT
        CASE WHEN metric_type IN ('version', 'other_versions') THEN 'reporting' ELSE metric_type END AS metric_type,
        key, total, instances
    FROM (
        SELECT d.metric_type, d.key, d.total, d.instances
        FROM series_days d
        WHERE d.app_slug = %(app)s AND d.at = (SELECT base FROM head)
        UNION ALL
        SELECT h.metric_type, h.key, h.total, h.instances
        FROM series_hours h
        WHERE h.app_slug = %(app)s AND h.at > (SELECT base FROM head) AND h.at <= %(at)s::timestamptz
    ) samples
) statuses
GROUP BY metric_type, key
HAVING sum(instances) > 0
ORDER BY metric_type = 'reporting' DESC, sum(instances) DESC, key, metric_type
LIMIT %(limit)s::bigint;

-- name: sum_global_metrics (prepared)
-- Every number over the current snapshots of all applications except those that hide it, from the tallies. `overrides`:
-- the distinct overrides of those applications; an empty object means no override.
WITH
-- use: due_instances
-- use: deltas
overridden AS MATERIALIZED (
    SELECT a.slug AS app_slug, o.key, o.value
    FROM applications a
    CROSS JOIN LATERAL jsonb_each(a.overrides) o
),
current_tallies AS (
    SELECT app_slug, key, sum(total) AS total, sum(instances) AS instances
    FROM (
        SELECT app_slug, key, total, instances FROM tallies WHERE metric_type = 'number'
        UNION ALL
        SELECT app_slug, key, total, instances FROM deltas WHERE metric_type = 'number'
    ) each
    GROUP BY app_slug, key
    HAVING sum(instances) > 0
)
SELECT
    k.key, trim_scale(sum(k.total)) AS total, sum(k.instances) AS instances,
    jsonb_agg(DISTINCT coalesce(o.value, '{}')) AS overrides
FROM current_tallies k
LEFT JOIN overridden o USING (app_slug, key)
WHERE o.value -> 'hidden' IS DISTINCT FROM 'true'::jsonb
GROUP BY k.key
ORDER BY sum(k.instances) DESC, k.key
LIMIT %(max_keys)s::bigint;

-- name: count_by_status (prepared)
-- The number of instances by application, status (unproven: without any signed request yet) and number of elapsed
-- activity windows, from the tallies; of one application or of all. Rows with the status `reporting` count the
-- instances with a current snapshot, which are in other rows too.
WITH
-- use: due_instances
-- use: deltas
current_tallies AS (
    SELECT app_slug, metric_type, key, value, instances, counted_instances FROM tallies
    WHERE metric_type IN ('status', 'version', 'other_versions') AND (%(app)s::text IS NULL OR app_slug = %(app)s)
    UNION ALL
    SELECT app_slug, metric_type, key, value, instances, counted_instances FROM deltas
    WHERE metric_type IN ('status', 'version', 'other_versions')
),
statuses AS (
    SELECT
        app_slug, instances, counted_instances,
        CASE metric_type WHEN 'status' THEN key ELSE 'reporting' END AS status,
        CASE metric_type WHEN 'status' THEN value::int ELSE 0 END AS elapsed_windows
    FROM current_tallies
)
SELECT
    l.app_slug, l.status, l.elapsed_windows, sum(l.instances) AS instances, sum(l.counted_instances) AS counted,
    settings.activity_windows, settings.active_window
FROM statuses l
CROSS JOIN settings
GROUP BY l.app_slug, l.status, l.elapsed_windows, settings.activity_windows, settings.active_window
HAVING sum(l.instances) <> 0;

-- name: count_new_this_week (prepared)
-- The number of instances first seen in the current hour or in the 168 hours before it, from the tallies.
SELECT coalesce(sum(instances), 0)::bigint AS instances
FROM tallies
WHERE metric_type = 'new' AND key >= to_char(now() AT TIME ZONE 'UTC' - interval '7 days', 'YYYY-MM-DD"T"HH24');

-- name: count_new_this_hour (prepared)
-- The number of instances first seen in the current hour, from the tallies.
SELECT coalesce(sum(instances), 0)::bigint AS instances
FROM tallies
WHERE metric_type = 'new' AND key = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24');

-- name: count_by_application (prepared)
-- Names of applications with their number of instances that have proved their key, the most instances first.
SELECT a.name, sum(t.instances)::bigint AS instances
FROM applications a
JOIN tallies t ON t.app_slug = a.slug AND t.metric_type = 'status' AND t.key <> 'unproven'
GROUP BY a.slug, a.name
HAVING sum(t.instances) > 0
ORDER BY sum(t.instances) DESC, a.slug
LIMIT %(limit)s::bigint;
