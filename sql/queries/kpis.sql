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
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY key ORDER BY instances DESC, value) AS rank
    FROM string_values
    WHERE instances > 0
),
top AS (
    SELECT
        key, sum(instances) AS instances,
        jsonb_agg(jsonb_build_object('value', value, 'instances', instances) ORDER BY rank) AS entries
    FROM ranked
    WHERE rank <= %(max_values)s::bigint
    GROUP BY key
)
SELECT
    'head' AS section, '' AS key, head.cursor AS instances,
    (SELECT count(*) FROM aggregated_keys WHERE app_slug = %(app)s)::numeric AS total,
    (SELECT refused_at FROM key_refusals WHERE app_slug = %(app)s AND refused_at > now() - interval '7 days') AS refused_at, NULL::bigint AS other,
    NULL::jsonb AS top, NULL::numeric AS min, NULL::numeric AS p50, NULL::numeric AS p90, NULL::numeric AS max,
    NULL::timestamptz AS distribution_as_of
FROM feed_head head
UNION ALL
SELECT
    CASE k.metric_type WHEN 'number' THEN 'numbers' WHEN 'boolean' THEN 'flags' ELSE 'categories' END,
    k.key, k.instances, trim_scale(k.total), NULL, k.instances - top.instances, top.entries,
    d.min, d.p50, d.p90, d.max, d.as_of
FROM ranked_keys k
LEFT JOIN top ON k.metric_type = 'strings' AND top.key = k.key
LEFT JOIN distributions d
    ON k.metric_type = 'number' AND d.app_slug = %(app)s AND d.counted_only = %(counted_only)s::boolean AND d.key = k.key
WHERE k.key_rank <= %(max_keys)s::bigint;

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
labelled AS (
    SELECT
        app_slug, instances, counted_instances,
        CASE metric_type WHEN 'status' THEN key ELSE 'reporting' END AS status,
        CASE metric_type WHEN 'status' THEN value::int ELSE 0 END AS elapsed_windows
    FROM current_tallies
)
SELECT
    l.app_slug, l.status, l.elapsed_windows, sum(l.instances) AS instances, sum(l.counted_instances) AS counted,
    settings.activity_windows, settings.active_window
FROM labelled l
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
