-- The histogram of a number over the instances that a filter selects. The statements read all of these instances.

-- name: summarize
-- The extremes of the values, the smallest one above zero, whether all are integers, and the percentiles of `shares`. No
-- row if no instance has a value.
SET LOCAL work_mem = '64MB';
WITH metric_values AS (
-- use: filtered_values
),
sorted AS (
    SELECT
        count(*) AS instances, min(value) FILTER (WHERE value > 0) AS min_positive,
        bool_and(value = trunc(value)) AS are_integers, array_agg(value ORDER BY value) AS sorted_values
    FROM metric_values
)
SELECT
    instances, sorted_values[1] AS min, sorted_values[instances] AS max, min_positive, are_integers,
    ARRAY(
        SELECT trim_scale(
            sorted_values[1 + floor(rank)::int]
            + (rank - floor(rank)) * (sorted_values[1 + ceil(rank)::int] - sorted_values[1 + floor(rank)::int])
        )
        FROM (
            SELECT position, share * (instances - 1) AS rank
            FROM unnest(%(shares)s::numeric[]) WITH ORDINALITY s (share, position)
        ) ranks
        ORDER BY position
    ) AS percentiles
FROM sorted
WHERE instances > 0;

-- name: count_by_bucket
-- The number of values from each of the ascending `bounds` up to the next one; positions begin with 1.
SELECT width_bucket(value, %(bounds)s::numeric[]) AS position, count(*) AS instances
FROM (
-- use: filtered_values
) metric_values
GROUP BY position;
