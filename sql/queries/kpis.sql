-- name: kpis
-- Every metric of the current snapshots, newer than the active window, of unrevoked instances: one row for each key and
-- sort of value (`part`: numbers, flags, categories). Of one application, or of all where `app` is null. One more row
-- (`part`: head) always comes, with the feed's cursor at which all of it is true.
WITH leaf AS MATERIALIZED (
    SELECT l.key, l.value, jsonb_typeof(l.value) AS sort
    FROM instances i
    CROSS JOIN jsonb_each(i.leaves) l
    WHERE
        (%(app)s::text IS NULL OR i.app_slug = %(app)s)
        AND i.status <> 'revoked'
        AND i.snapshot_at > now() - %(active_window)s::interval
        AND (
            NOT %(counted_only)s::boolean OR (
                lower(i.environment) <> ALL(%(uncounted)s::text[])
                AND i.leaves -> 'sys_ephemeral' IS DISTINCT FROM 'true'::jsonb
            )
        )
),
sorted AS (
    SELECT key, count(*) AS instances, sum(v) AS total, trim_scale(avg(v)) AS mean, array_agg(v ORDER BY v) AS vs
    FROM (SELECT key, value::numeric AS v FROM leaf WHERE sort = 'number') n
    GROUP BY key
),
placed AS (
    SELECT *, 0.5 * (instances - 1) AS at50, 0.9 * (instances - 1) AS at90 FROM sorted
),
valued AS (
    SELECT
        key, value #>> '{}' AS value, count(*) AS instances,
        row_number() OVER (PARTITION BY key ORDER BY count(*) DESC, value #>> '{}') AS place
    FROM leaf
    WHERE sort = 'string'
    GROUP BY key, value
)
SELECT
    'head' AS part, '' AS key, head.cursor AS instances,
    NULL::numeric AS total, NULL::numeric AS mean, NULL::numeric AS least, NULL::numeric AS p50, NULL::numeric AS p90,
    NULL::numeric AS most, NULL::bigint AS trues, NULL::bigint AS other, NULL::jsonb AS top
FROM feed_head head
UNION ALL
(
    SELECT
        'numbers', key, instances, total, mean, vs[1],
        trim_scale(vs[1 + floor(at50)::int]
            + (at50 - floor(at50)) * (vs[1 + ceil(at50)::int] - vs[1 + floor(at50)::int])),
        trim_scale(vs[1 + floor(at90)::int]
            + (at90 - floor(at90)) * (vs[1 + ceil(at90)::int] - vs[1 + floor(at90)::int])),
        vs[instances], NULL, NULL, NULL
    FROM placed
    ORDER BY instances DESC, key
    LIMIT %(most_keys)s::bigint
)
UNION ALL
(
    SELECT
        'flags', key, count(*), NULL, NULL, NULL, NULL, NULL, NULL,
        count(*) FILTER (WHERE value = 'true'::jsonb), NULL, NULL
    FROM leaf
    WHERE sort = 'boolean'
    GROUP BY key
    ORDER BY count(*) DESC, key
    LIMIT %(most_keys)s::bigint
)
UNION ALL
(
    SELECT
        'categories', key, sum(instances), NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        coalesce(sum(instances) FILTER (WHERE place > %(most_values)s::bigint), 0),
        jsonb_agg(jsonb_build_object('value', value, 'instances', instances) ORDER BY place)
            FILTER (WHERE place <= %(most_values)s::bigint)
    FROM valued
    GROUP BY key
    ORDER BY sum(instances) DESC, key
    LIMIT %(most_keys)s::bigint
);

-- name: stats
-- The counts over all applications.
SELECT
    count(*) AS total,
    count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'revoked') AS revoked,
    count(*) FILTER (WHERE status = 'active' AND last_seen_at > now() - %(active_window)s::interval) AS active,
    count(*) FILTER (WHERE status = 'active' AND last_seen_at > now() - interval '1 day') AS daily,
    count(*) FILTER (WHERE status = 'active' AND last_seen_at > now() - interval '7 days') AS weekly,
    count(*) FILTER (WHERE status = 'active' AND last_seen_at > now() - interval '30 days') AS monthly,
    count(*) FILTER (WHERE first_seen_at > now() - interval '7 days') AS new_this_week,
    count(*) FILTER (
        WHERE status = 'active' AND last_seen_at > now() - %(active_window)s::interval
        AND NOT ephemeral AND lower(environment) <> ALL(%(uncounted)s::text[])
    ) AS counted
FROM instance_items;

-- name: per_app_counts
-- Instances for each application that is there, under its name.
SELECT a.name, count(*) AS instances
FROM applications a
JOIN instances i ON i.app_slug = a.slug
GROUP BY a.slug, a.name
ORDER BY count(*) DESC, a.slug
LIMIT %(most)s;
