-- Comparisons of derived data with its sources. A comparison is one statement, so both of its sides are of one moment,
-- and concurrent writes do not affect it. On a cluster the workers' side is of a later moment: the comparisons that this
-- concerns leave out what changed after `until`, a cursor up to which all snapshots are visible.
-- The rows are the differences: the table, the row's key, the actual and the expected value (as text, cut), and the input
-- of the statement of the same name in repair.sql (`repair_row`).

-- name: set_plans
-- Settings of the session: plans for whole results, with joins and sums in hash tables of at most 256 MB. PostgreSQL
-- overestimates the number of groups, and would sort millions of rows on disk. It underestimates the rows of joins, and
-- would compare each install with each other.
SELECT
    set_config('cursor_tuple_fraction', '1', FALSE), set_config('work_mem', '64MB', FALSE),
    set_config('hash_mem_multiplier', '4', FALSE), set_config('enable_sort', 'off', FALSE),
    set_config('enable_nestloop', 'off', FALSE);

-- name: orphans
-- Snapshots of no instance. No foreign key prevents them: it would read the instance again for each stored row, and a
-- distributed table cannot refer to a local one.
WITH stored AS MATERIALIZED (
    SELECT instance_id, count(*) AS snapshots, max(cursor) AS cursor FROM snapshots GROUP BY instance_id
)
SELECT
    'snapshots' AS table_name,
    concat_ws(', ', left(s.instance_id::text, 8), 'of no instance') AS row_key,
    concat(s.snapshots, ' rows') AS actual,
    'none' AS expected,
    jsonb_build_object('instance_id', s.instance_id, 'cursor', s.cursor) AS repair_row
FROM stored s
WHERE
    s.cursor <= %(until)s::bigint
    AND NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = s.instance_id)
    AND NOT EXISTS (SELECT FROM removals r WHERE r.instance_id = s.instance_id AND r.cursor > %(until)s::bigint);

-- name: leaves
-- Raw snapshots whose leaves are not those of their metrics that were aggregated. Most metrics are flat and equal to
-- their leaves. A search for members that `flatten_metrics` changes or omits takes a fraction of the time of flattening.
WITH unequal AS MATERIALIZED (
    SELECT
        instance_id, snapshot_at, app_slug, cursor, coalesce(leaves, metrics) AS stored,
        flatten_metrics(metrics) AS flattened
    FROM snapshots
    WHERE
        CASE
            WHEN leaves IS NOT NULL THEN leaves <> flatten_metrics(metrics)
            ELSE EXISTS (
                SELECT 1 FROM jsonb_each(metrics) member
                WHERE
                    CASE jsonb_typeof(member.value)
                        WHEN 'number' THEN FALSE
                        WHEN 'boolean' THEN FALSE
                        WHEN 'string' THEN length(member.value #>> '{}') > 64
                        ELSE TRUE
                    END
            )
        END
),
-- use: expected_leaves
compared AS (
    SELECT u.instance_id, u.snapshot_at, u.stored, e.leaves AS expected
    FROM unequal u
    JOIN expected_leaves e ON e.instance_id = u.instance_id AND e.snapshot_at = u.snapshot_at
    WHERE u.stored <> e.leaves
)
SELECT
    'snapshots' AS table_name,
    concat_ws(', ', left(instance_id::text, 8), snapshot_at, 'leaves') AS row_key,
    left(stored::text, 200) AS actual,
    left(expected::text, 200) AS expected,
    jsonb_build_object('instance_id', instance_id, 'snapshot_at', snapshot_at) AS repair_row
FROM compared;

-- name: instances
-- Instances whose current snapshot is not their newest raw one, or whose evaluated columns contradict the settings.
-- These columns are not compared if time has just changed them or is about to: the refresh will write them. Instances
-- that are being erased have lost snapshots already. Those that changed after `until` are left out.
WITH
-- use: raw_history
newest_snapshots AS (
    SELECT s.instance_id, s.snapshot_at, s.app_slug, s.metrics, s.leaves, s.sequence
    FROM (
        SELECT instance_id, max(snapshot_at) AS snapshot_at FROM snapshots WHERE cursor <= %(until)s::bigint
        GROUP BY instance_id
    ) newest
    JOIN snapshots s ON s.instance_id = newest.instance_id AND s.snapshot_at = newest.snapshot_at
),
before AS NOT MATERIALIZED (
    SELECT s.*
    FROM instance_states s
    JOIN instances i USING (instance_id)
    WHERE i.erasing_since IS NULL AND i.cursor <= %(until)s::bigint
),
-- use: expected_state
-- use: deltas
compared AS (
    SELECT i.instance_id, field.*
    FROM evaluated p
    JOIN instances i ON i.instance_id = p.instance_id
    LEFT JOIN newest_snapshots n ON n.instance_id = i.instance_id AND n.snapshot_at = i.snapshot_at
    CROSS JOIN LATERAL (
        SELECT coalesce(i.refresh_at <= now(), FALSE) OR coalesce(p.refresh_at <= now() + interval '1 minute', FALSE) AS passes
    ) clock
    CROSS JOIN LATERAL (
        VALUES
            ('snapshot_at', i.snapshot_at::text, p.snapshot_at::text, i.snapshot_at IS DISTINCT FROM p.snapshot_at),
            ('metrics', i.metrics::text, p.metrics::text, i.metrics <> p.metrics),
            ('leaves', coalesce(i.leaves, i.metrics)::text, p.leaves::text, coalesce(i.leaves, i.metrics) <> p.leaves),
            ('sequence', i.sequence::text, n.sequence::text, n.instance_id IS NOT NULL AND i.sequence IS DISTINCT FROM n.sequence),
            ('counted', i.counted::text, p.counted::text, NOT clock.passes AND i.counted <> p.counted),
            ('elapsed_windows', i.elapsed_windows::text, p.elapsed_windows::text, NOT clock.passes AND i.elapsed_windows <> p.elapsed_windows),
            ('reporting', i.reporting::text, p.reporting::text, NOT clock.passes AND i.reporting <> p.reporting),
            ('refresh_at', i.refresh_at::text, p.refresh_at::text, NOT clock.passes AND i.refresh_at IS DISTINCT FROM p.refresh_at)
    ) field (name, actual, expected, differs)
    WHERE field.differs
)
SELECT
    'instances' AS table_name,
    concat_ws(', ', left(instance_id::text, 8), name) AS row_key,
    coalesce(left(actual, 200), 'nothing') AS actual,
    coalesce(left(expected, 200), 'nothing') AS expected,
    jsonb_build_object('instance_id', instance_id) AS repair_row
FROM compared;

-- name: select_version_ranks
-- The version of every instance with its stored rank. Python computes the expected rank.
SELECT instance_id, app_version, version_rank FROM instances;

-- name: tallies
-- Tallies that are not the sums over the present instances. With every instance in `before` and none in `after`,
-- `deltas` are the negated sums.
WITH before AS NOT MATERIALIZED (
    SELECT * FROM instance_states
),
-- use: after_deleted
-- use: deltas
compared AS (
    SELECT
        app_slug, metric_type, key, value,
        coalesce(t.total, 0) AS total,
        coalesce(t.instances, 0) AS instances,
        coalesce(t.counted_total, 0) AS counted_total,
        coalesce(t.counted_instances, 0) AS counted_instances,
        -coalesce(m.total, 0) AS true_total,
        -coalesce(m.instances, 0) AS true_instances,
        -coalesce(m.counted_total, 0) AS true_counted_total,
        -coalesce(m.counted_instances, 0) AS true_counted_instances
    FROM tallies t
    FULL JOIN deltas m USING (app_slug, metric_type, key, value)
)
SELECT
    'tallies' AS table_name,
    concat_ws(', ', app_slug, metric_type, nullif(key, ''), nullif(value, '')) AS row_key,
    concat(
        trim_scale(total), ' over ', instances, ', counted ', trim_scale(counted_total), ' over ', counted_instances
    ) AS actual,
    concat(
        trim_scale(true_total), ' over ', true_instances, ', counted ', trim_scale(true_counted_total), ' over ',
        true_counted_instances
    ) AS expected,
    jsonb_build_object(
        'app_slug', app_slug, 'metric_type', metric_type, 'key', key, 'value', value,
        'total', true_total - total,
        'instances', true_instances - instances,
        'counted_total', true_counted_total - counted_total,
        'counted_instances', true_counted_instances - counted_instances
    ) AS repair_row
FROM compared
WHERE
    total <> true_total OR instances <> true_instances OR counted_total <> true_counted_total
    OR counted_instances <> true_counted_instances
ORDER BY app_slug, metric_type, key, value;

-- name: versions
-- Times at which installs first reported versions, if the raw snapshots contradict them. The rolled-up snapshots
-- determine the latest possible time, and all snapshots the earliest. Times before the oldest stored raw snapshots are
-- accepted.
WITH
-- use: raw_history
reported AS MATERIALIZED (
    SELECT f.instance_id, f.app_version, f.first_at, f.rolled_at, s.app_slug
    FROM (
        SELECT
            instance_id, app_version, min(snapshot_at) AS first_at,
            min(snapshot_at) FILTER (WHERE cursor <= (SELECT cursor FROM series_head)) AS rolled_at
        FROM snapshots
        WHERE NOT version_refused
        GROUP BY instance_id, app_version
    ) f
    JOIN snapshots s ON s.instance_id = f.instance_id AND s.snapshot_at = f.first_at
),
compared AS (
    SELECT paired.*
    FROM (
        SELECT
            instance_id, app_version, v.first_at, v.app_slug, r.first_at AS true_first_at, r.rolled_at,
            r.app_slug AS true_app_slug
        FROM versions_seen v
        FULL JOIN reported r USING (instance_id, app_version)
    ) paired
    WHERE NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = paired.instance_id AND i.erasing_since IS NOT NULL)
)
SELECT
    'versions_seen' AS table_name,
    concat_ws(', ', left(instance_id::text, 8), nullif(app_version, '')) AS row_key,
    coalesce(nullif(concat_ws(', ', first_at, app_slug), ''), 'nothing') AS actual,
    coalesce(nullif(concat_ws(', ', true_first_at, true_app_slug), ''), 'nothing') AS expected,
    jsonb_build_object('instance_id', instance_id, 'app_version', app_version) AS repair_row
FROM compared
WHERE
    (first_at IS NULL AND rolled_at IS NOT NULL)
    OR first_at > rolled_at
    OR (first_at >= (SELECT since FROM raw_history) AND (true_first_at IS NULL OR first_at < true_first_at))
    OR (first_at = true_first_at AND app_slug <> true_app_slug)
ORDER BY instance_id, app_version;

-- name: absences
-- Absences that ended before they began, or of no instance.
SELECT
    'absences' AS table_name,
    concat_ws(', ', left(a.instance_id::text, 8), a.lost_at) AS row_key,
    concat('ended ', a.returned_at, CASE WHEN i.instance_id IS NULL THEN ', of no instance' END) AS actual,
    'none' AS expected,
    jsonb_build_object('instance_id', a.instance_id, 'lost_at', a.lost_at) AS repair_row
FROM absences a
LEFT JOIN instances i ON i.instance_id = a.instance_id
WHERE i.instance_id IS NULL OR a.lost_at > a.returned_at
ORDER BY a.lost_at, a.instance_id;

-- name: distributions
-- Stored distributions that are not those of the values at their time. They can be computed again while no instance of
-- their application has changed since: all others are left out.
WITH newest AS MATERIALIZED (
    SELECT app_slug, max(cursor) AS cursor
    FROM (
        SELECT app_slug, cursor FROM instances
        UNION ALL
        SELECT app_slug, cursor FROM removals
    ) changes
    GROUP BY app_slug
),
stored AS MATERIALIZED (
    SELECT d.*
    FROM distributions d
    CROSS JOIN feed_head head
    LEFT JOIN newest n USING (app_slug)
    WHERE d.cursor >= head.horizon AND d.cursor >= coalesce(n.cursor, 0)
),
sorted AS (
    SELECT
        d.app_slug, d.counted_only, d.key, count(*) AS instances,
        array_agg(leaf.value::numeric ORDER BY leaf.value::numeric) AS sorted_values
    FROM instance_states s
    CROSS JOIN settings
    CROSS JOIN LATERAL jsonb_each(s.leaves) leaf
    JOIN stored d ON d.app_slug = s.app_slug AND d.key = leaf.key
    WHERE
        s.app_slug IN (SELECT app_slug FROM stored)
        AND s.status <> 'revoked' AND s.snapshot_at + settings.active_window > d.as_of
        AND (s.counted OR NOT d.counted_only)
        AND jsonb_typeof(leaf.value) = 'number'
    GROUP BY d.app_slug, d.counted_only, d.key
),
expected AS (
    SELECT
        app_slug, counted_only, key, instances,
-- use: distribution
    FROM sorted
),
compared AS (
    SELECT
        d.app_slug, d.counted_only, d.key, d.cursor,
        concat(d.min, ', ', trim_scale(d.p50), ', ', trim_scale(d.p90), ', ', d.max, ' over ', d.instances) AS actual,
        CASE
            WHEN e.instances IS NULL THEN 'nothing'
            ELSE concat(e.min, ', ', e.p50, ', ', e.p90, ', ', e.max, ' over ', e.instances)
        END AS expected
    FROM stored d
    LEFT JOIN expected e USING (app_slug, counted_only, key)
    WHERE (d.min, d.p50, d.p90, d.max, d.instances) IS DISTINCT FROM (e.min, e.p50, e.p90, e.max, e.instances)
)
SELECT
    'distributions' AS table_name,
    concat_ws(', ', app_slug, CASE WHEN counted_only THEN 'counted' ELSE 'all' END, nullif(key, '')) AS row_key,
    actual,
    expected,
    jsonb_build_object('app_slug', app_slug, 'counted_only', counted_only, 'key', key, 'cursor', cursor) AS repair_row
FROM compared
ORDER BY app_slug, counted_only, key;
