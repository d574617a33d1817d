-- Suggestions of installs for the overrides of their metrics.

-- name: select_common
-- The most frequent hint for each key among the `max_recent` most recently seen instances of an application, if they are
-- active. `instances`: how many of them give this hint. `others`: how many give another one for the key. Keys of most
-- instances first. Instances of one version usually have the same hints, so these are read once.
WITH recent AS MATERIALIZED (
    SELECT instance_id, status FROM instances
    WHERE app_slug = %(app)s
    ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
    LIMIT %(max_recent)s
),
documents AS MATERIALIZED (
    SELECT h.hints, count(*) AS instances
    FROM recent r
    JOIN metric_hints h ON h.instance_id = r.instance_id
    WHERE r.status = 'active'
    GROUP BY h.hints
),
hints_by_key AS (
    SELECT each.key, each.value AS hint, sum(d.instances)::bigint AS instances
    FROM documents d
    CROSS JOIN LATERAL jsonb_each(d.hints) each
    GROUP BY each.key, each.value
),
ranked AS (
    SELECT
        key, hint, instances,
        sum(instances) OVER (PARTITION BY key)::bigint - instances AS others,
        row_number() OVER (PARTITION BY key ORDER BY instances DESC, hint) AS rank
    FROM hints_by_key
)
SELECT key, hint, instances, others FROM ranked
WHERE rank = 1
ORDER BY instances DESC, key COLLATE "C"
LIMIT %(max_keys)s;
