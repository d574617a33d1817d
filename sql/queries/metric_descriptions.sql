-- name: select_keys
-- The types and overrides of metric keys, of one application or of all: of these keys, or of the keys that most
-- instances report or that have an override. `value_type`: number, boolean or strings, as in most instances; null for
-- keys that have none of these types in any current snapshot. `overrides`: the distinct overrides of the applications
-- with the key; an empty object means no override. `aggregated`: whether the key is within the limit of its application.
WITH overridden AS MATERIALIZED (
    SELECT a.slug AS app_slug, o.key, o.value
    FROM applications a
    CROSS JOIN LATERAL jsonb_each(a.overrides) o
    WHERE %(app)s::text IS NULL OR a.slug = %(app)s
),
tallied_keys AS MATERIALIZED (
    SELECT app_slug, key, metric_type, instances
    FROM tallies
    WHERE
        metric_type IN ('number', 'boolean', 'strings') AND instances > 0
        AND (%(app)s::text IS NULL OR app_slug = %(app)s)
        AND (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s::text[]))
),
typed AS (
    SELECT DISTINCT ON (key) key, metric_type, instances
    FROM (SELECT key, metric_type, sum(instances) AS instances FROM tallied_keys GROUP BY key, metric_type) each
    ORDER BY key, instances DESC, metric_type
),
requested AS (
    SELECT key FROM unnest(%(keys)s::text[]) key
    UNION
    SELECT key FROM typed
    UNION
    SELECT key FROM overridden WHERE %(keys)s::text[] IS NULL
),
override_sets AS (
    SELECT key, jsonb_agg(DISTINCT coalesce(o.value, '{}')) AS overrides
    FROM (
        SELECT DISTINCT app_slug, key FROM tallied_keys
        UNION ALL
        SELECT app_slug, key FROM overridden WHERE key NOT IN (SELECT key FROM typed)
    ) k
    LEFT JOIN overridden o USING (app_slug, key)
    GROUP BY key
)
SELECT
    a.key, t.metric_type AS value_type, coalesce(s.overrides, '[]') AS overrides,
    t.key IS NOT NULL OR EXISTS (
        SELECT FROM aggregated_keys k WHERE k.key = a.key AND (%(app)s::text IS NULL OR k.app_slug = %(app)s)
    ) AS aggregated
FROM requested a
LEFT JOIN typed t USING (key)
LEFT JOIN override_sets s USING (key)
ORDER BY t.instances DESC NULLS LAST, a.key
LIMIT %(max_keys)s::bigint;
