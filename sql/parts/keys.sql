-- The keys, values and versions that are aggregated.

-- part: keys_admitted
-- Decides which of `sent_keys`, `sent_values` and `sent_versions` are aggregated, and adds the new ones up to the limits:
-- first the keys for which the vendor made a setting, which are always added, and `sys_ephemeral`, which decides what the
-- headline counts; then those of the most instances. `refused_keys`, `refused_values` and `refused_versions` are the
-- others. OFFSET 0 makes each look-up one read of an index. Requires the writers' lock.
new_keys AS MATERIALIZED (
    SELECT s.app_slug, s.key, sum(s.instances) AS instances
    FROM sent_keys s
    WHERE NOT EXISTS (SELECT FROM aggregated_keys a WHERE a.app_slug = s.app_slug AND a.key = s.key OFFSET 0)
    GROUP BY s.app_slug, s.key
),
key_counts AS MATERIALIZED (
    SELECT n.app_slug, (SELECT count(*) FROM aggregated_keys a WHERE a.app_slug = n.app_slug) AS added
    FROM (SELECT DISTINCT app_slug FROM new_keys) n
),
chosen_keys AS MATERIALIZED (
    SELECT a.slug AS app_slug, a.public_metrics || ARRAY(SELECT jsonb_object_keys(a.overrides)) AS keys
    FROM applications a
    WHERE a.slug = ANY(ARRAY(SELECT app_slug FROM key_counts))
),
ranked_keys AS MATERIALIZED (
    SELECT
        app_slug, key,
        is_chosen OR added + row_number() OVER (
            PARTITION BY app_slug ORDER BY is_chosen DESC, instances DESC, key
        ) <= %(max_keys)s::bigint AS is_added
    FROM (
        SELECT n.*, c.added, n.key = 'sys_ephemeral' OR coalesce(n.key = ANY(v.keys), FALSE) AS is_chosen
        FROM new_keys n
        JOIN key_counts c ON c.app_slug = n.app_slug
        LEFT JOIN chosen_keys v ON v.app_slug = n.app_slug
    ) each
),
keys_added AS (
    INSERT INTO aggregated_keys (app_slug, key, cursor)
    SELECT r.app_slug, r.key, head.cursor + 1
    FROM ranked_keys r
    CROSS JOIN feed_head head
    WHERE r.is_added
    ON CONFLICT (app_slug, key) DO NOTHING
),
refused_keys AS MATERIALIZED (
    SELECT app_slug, key FROM ranked_keys WHERE NOT is_added
),
new_values AS MATERIALIZED (
    SELECT s.app_slug, s.key, s.value, sum(s.instances) AS instances
    FROM sent_values s
    LEFT JOIN refused_keys r ON r.app_slug = s.app_slug AND r.key = s.key
    WHERE
        r.key IS NULL AND NOT EXISTS (
            SELECT FROM aggregated_values a
            WHERE a.app_slug = s.app_slug AND a.key = s.key AND a.value = s.value
            OFFSET 0
        )
    GROUP BY s.app_slug, s.key, s.value
),
value_counts AS MATERIALIZED (
    SELECT
        n.app_slug, n.key,
        (SELECT count(*) FROM aggregated_values a WHERE a.app_slug = n.app_slug AND a.key = n.key) AS added
    FROM (SELECT DISTINCT app_slug, key FROM new_values) n
),
value_totals AS MATERIALIZED (
    SELECT n.app_slug, (SELECT count(*) FROM aggregated_values a WHERE a.app_slug = n.app_slug) AS added
    FROM (SELECT DISTINCT app_slug FROM new_values) n
),
ranked_values AS MATERIALIZED (
    SELECT
        app_slug, key, value,
        is_within_key AND of_application + row_number() OVER (
            PARTITION BY app_slug, is_within_key ORDER BY instances DESC, key, value
        ) <= %(max_all_values)s::bigint AS is_added
    FROM (
        SELECT
            n.*, t.added AS of_application,
            c.added + row_number() OVER (
                PARTITION BY n.app_slug, n.key ORDER BY n.instances DESC, n.value
            ) <= %(max_values)s::bigint AS is_within_key
        FROM new_values n
        JOIN value_counts c ON c.app_slug = n.app_slug AND c.key = n.key
        JOIN value_totals t ON t.app_slug = n.app_slug
    ) each
),
values_added AS (
    INSERT INTO aggregated_values (app_slug, key, value, cursor)
    SELECT r.app_slug, r.key, r.value, head.cursor + 1
    FROM ranked_values r
    CROSS JOIN feed_head head
    WHERE r.is_added
    ON CONFLICT (app_slug, key, value) DO NOTHING
),
refused_values AS MATERIALIZED (
    SELECT app_slug, key, value FROM ranked_values WHERE NOT is_added
),
new_versions AS MATERIALIZED (
    SELECT s.app_slug, s.app_version, sum(s.instances) AS instances
    FROM sent_versions s
    WHERE NOT EXISTS (
        SELECT FROM aggregated_versions a WHERE a.app_slug = s.app_slug AND a.app_version = s.app_version OFFSET 0
    )
    GROUP BY s.app_slug, s.app_version
),
version_counts AS MATERIALIZED (
    SELECT n.app_slug, (SELECT count(*) FROM aggregated_versions a WHERE a.app_slug = n.app_slug) AS added
    FROM (SELECT DISTINCT app_slug FROM new_versions) n
),
ranked_versions AS MATERIALIZED (
    SELECT
        n.app_slug, n.app_version,
        c.added + row_number() OVER (
            PARTITION BY n.app_slug ORDER BY n.instances DESC, n.app_version
        ) <= %(max_versions)s::bigint AS is_added
    FROM new_versions n
    JOIN version_counts c ON c.app_slug = n.app_slug
),
versions_added AS (
    INSERT INTO aggregated_versions (app_slug, app_version, cursor)
    SELECT r.app_slug, r.app_version, head.cursor + 1
    FROM ranked_versions r
    CROSS JOIN feed_head head
    WHERE r.is_added
    ON CONFLICT (app_slug, app_version) DO NOTHING
),
refused_versions AS MATERIALIZED (
    SELECT app_slug, app_version FROM ranked_versions WHERE NOT is_added
),
refusals_recorded AS (
    INSERT INTO key_refusals AS existing (app_slug, refused_at)
    SELECT app_slug, now() FROM refused_keys
    UNION
    SELECT app_slug, now() FROM refused_values
    UNION
    SELECT app_slug, now() FROM refused_versions
    ON CONFLICT (app_slug) DO UPDATE SET refused_at = excluded.refused_at
    WHERE existing.refused_at < excluded.refused_at - interval '1 minute'
),

-- part: moved_leaves
-- `moved_leaves`: the leaves of the instances in `moving` with the keys and values that are aggregated in their next
-- application, `app_slug`. `moving` has those with a current snapshot, its time and its flattened leaves. Requires the
-- writers' lock.
moving_snapshots AS MATERIALIZED (
    SELECT instance_id, snapshot_at, app_slug, coalesce(leaves, metrics) AS leaves
    FROM find_snapshots(
        ARRAY(SELECT instance_id FROM moving ORDER BY instance_id),
        ARRAY(SELECT snapshot_at FROM moving ORDER BY instance_id)
    )
),
moved AS MATERIALIZED (
    SELECT m.instance_id, m.app_slug, m.leaves, s.leaves AS sent_leaves
    FROM moving m
    LEFT JOIN moving_snapshots s
        ON s.instance_id = m.instance_id AND s.snapshot_at = m.snapshot_at AND s.app_slug = m.app_slug
),
sent_keys AS (
    SELECT m.app_slug, leaf.key, 1 AS instances
    FROM moved m
    CROSS JOIN LATERAL jsonb_each(m.leaves) leaf
    WHERE m.sent_leaves IS NULL
),
sent_values AS (
    SELECT m.app_slug, leaf.key, leaf.value #>> '{}' AS value, 1 AS instances
    FROM moved m
    CROSS JOIN LATERAL jsonb_each(m.leaves) leaf
    WHERE m.sent_leaves IS NULL AND jsonb_typeof(leaf.value) = 'string'
),
-- use: keys_admitted
moved_leaves AS MATERIALIZED (
    SELECT
        m.instance_id,
        coalesce(
            m.sent_leaves,
            m.leaves - (
                ARRAY(SELECT r.key FROM refused_keys r WHERE r.app_slug = m.app_slug)
                || ARRAY(
                    SELECT r.key FROM refused_values r
                    WHERE r.app_slug = m.app_slug AND m.leaves -> r.key = to_jsonb(r.value)
                )
            )
        ) AS leaves
    FROM moved m
),

-- part: key_is_unused
-- Whether no current snapshot has the aggregated key `k`. One that has had its place for 30 days and has values in the
-- charts of 90 days is used: installs may send it once a week only. A chart by hours has changes, one by days has values.
-- No chart has texts.
    NOT EXISTS (
        SELECT FROM tallies t
        WHERE
            t.app_slug = k.app_slug AND t.metric_type IN ('number', 'boolean', 'strings') AND t.key = k.key
            AND t.instances > 0
    )
    AND (
        k.added_at > now() - interval '30 days' OR NOT EXISTS (
            SELECT FROM series_hours h
            WHERE
                h.app_slug = k.app_slug AND h.metric_type IN ('number', 'boolean') AND h.key = k.key AND h.instances > 0
        )
        AND NOT EXISTS (
            SELECT FROM series_days d
            WHERE
                d.app_slug = k.app_slug AND d.metric_type IN ('number', 'boolean') AND d.key = k.key
                AND d.instances > 0 AND d.at > now() - interval '90 days'
        )
    )

-- part: value_is_unused
-- Whether no current snapshot has the aggregated value `v`.
    NOT EXISTS (
        SELECT FROM tallies t
        WHERE
            t.app_slug = v.app_slug AND t.metric_type = 'string' AND t.key = v.key AND t.value = v.value
            AND t.instances > 0
    )

-- part: version_is_unused
-- Whether no current snapshot has the aggregated version `v`.
    NOT EXISTS (
        SELECT FROM tallies t
        WHERE
            t.app_slug = v.app_slug AND t.metric_type = 'version' AND t.key = '' AND t.value = v.app_version
            AND t.instances > 0
    )
