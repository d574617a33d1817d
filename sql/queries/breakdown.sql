-- name: count_by_value
-- The number of instances of an application for each value of `column` (null: of the string or boolean metric `by`), over the
-- same instances as the KPIs, and the sum and count of the number `metric` over each group. `with_distribution` adds the
-- distribution of this number. The most frequent values have one row each; one more row combines the rest (value null,
-- `is_rest`). The statement reads every instance of the application.
WITH instance_values AS MATERIALIZED (
    SELECT
        coalesce(
-- use: text_column
            ,
            CASE
                WHEN jsonb_typeof(coalesce(i.leaves, i.metrics) -> %(by)s::text) IN ('string', 'boolean')
                THEN coalesce(i.leaves, i.metrics) ->> %(by)s::text
            END
        ) AS value,
        CASE
            WHEN jsonb_typeof(coalesce(i.leaves, i.metrics) -> %(metric)s::text) = 'number'
            THEN (coalesce(i.leaves, i.metrics) -> %(metric)s::text)::numeric
        END AS number
    FROM instances i
    CROSS JOIN settings
    WHERE
        i.app_slug = %(app)s AND i.status <> 'revoked' AND i.snapshot_at + settings.active_window > now()
        AND (i.counted OR NOT %(counted_only)s::boolean)
),
ranked AS (
    SELECT value, row_number() OVER (ORDER BY count(*) DESC, value) AS rank
    FROM instance_values
    WHERE value IS NOT NULL
    GROUP BY value
),
grouped AS (
    SELECT
        CASE WHEN r.rank <= %(max_values)s THEN v.value END AS value,
        r.rank > %(max_values)s AS is_rest,
        count(*) AS all_instances,
        count(v.number) AS instances,
        trim_scale(sum(v.number)) AS total,
        CASE
            WHEN %(with_distribution)s::boolean
            THEN array_agg(v.number ORDER BY v.number) FILTER (WHERE v.number IS NOT NULL)
        END AS sorted_values
    FROM instance_values v
    JOIN ranked r USING (value)
    GROUP BY 1, 2
)
SELECT
    value, is_rest, all_instances AS instances, instances AS answered, total,
-- use: distribution
FROM grouped
ORDER BY is_rest, all_instances DESC, value;
