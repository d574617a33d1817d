-- Parts of the statements that read KPIs.

-- part: is_reporting
-- Whether an instance has a current snapshot that the KPIs are over.
            status <> 'revoked' AND coalesce(snapshot_at + (SELECT active_window FROM settings) > now(), FALSE)

-- part: in_kpis
-- The same; with `counted_only`, whether the headline counts it too.
            (counted OR NOT %(counted_only)s::boolean) AND
-- use: is_reporting

-- part: kpi_rows
-- The rows of KPIs, and the row `head`, from `ranked_keys` (each key and type with its sums), `string_values` (the instances
-- of each value of a category) and `known_distributions`.
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
LEFT JOIN known_distributions d ON k.metric_type = 'number' AND d.key = k.key
WHERE k.key_rank <= %(max_keys)s::bigint

-- part: filtered_leaves
-- The leaves of the instances that a filter selects.
    SELECT coalesce(leaves, metrics) AS leaves
    FROM instances
    WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
            AND
-- use: in_kpis

-- part: filtered_values
-- The values (`value`) of the number `key` over the instances that a filter selects.
    SELECT (leaves -> %(key)s::text)::numeric AS value
    FROM (
-- use: filtered_leaves
        OFFSET 0
    ) filtered
    WHERE jsonb_typeof(leaves -> %(key)s::text) = 'number'
