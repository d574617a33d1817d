-- The expected derived data, from the raw snapshots.

-- part: raw_history
-- `raw_history`: the time since which all raw snapshots are stored; -infinity if none has been dropped.
raw_history AS MATERIALIZED (
    SELECT raw_since AS since FROM series_head
),

-- part: expected_leaves
-- `expected_leaves`: what the leaves of `unequal` must be, rows whose `stored` leaves are not all the `flattened` ones of
-- their metrics. A leaf may be missing if its key or value was not aggregated at `cursor`.
expected_leaves AS MATERIALIZED (
    SELECT
        u.instance_id, u.snapshot_at,
        coalesce(jsonb_object_agg(leaf.key, leaf.value) FILTER (
            WHERE
            u.stored -> leaf.key = leaf.value
            OR (k.key IS NOT NULL AND (jsonb_typeof(leaf.value) <> 'string' OR v.value IS NOT NULL))
        ), '{}') AS leaves
    FROM unequal u
    LEFT JOIN LATERAL jsonb_each(u.flattened) leaf ON TRUE
    LEFT JOIN aggregated_keys k ON k.app_slug = u.app_slug AND k.key = leaf.key AND k.cursor <= u.cursor
    LEFT JOIN aggregated_values v
        ON v.app_slug = u.app_slug AND v.key = leaf.key AND v.value = leaf.value #>> '{}' AND v.cursor <= u.cursor
    GROUP BY u.instance_id, u.snapshot_at
),

-- part: expected_state
-- `after`: the state of the instances in `before` that follows from their newest raw snapshots, `newest_snapshots`. An
-- instance without snapshots has no state, unless its snapshots may have been dropped (`raw_history`): then its present
-- state is kept. The leaves are those of the snapshot, or those that an instance kept that has changed its application
-- since.
expected_snapshots AS MATERIALIZED (
    SELECT
        b.instance_id, b.app_slug, b.app_version, b.environment, b.status, b.first_seen_at, b.last_seen_at,
        expected.snapshot_at, expected.metrics,
        CASE WHEN raw.app_slug = b.app_slug THEN coalesce(raw.leaves, raw.metrics) END AS sent_leaves,
        b.leaves AS stored, flatten_metrics(expected.metrics) AS flattened, i.app_cursor AS cursor
    FROM before b
    JOIN instances i ON i.instance_id = b.instance_id
    CROSS JOIN raw_history
    LEFT JOIN newest_snapshots raw ON raw.instance_id = b.instance_id
    CROSS JOIN LATERAL (
        SELECT raw.snapshot_at, raw.metrics WHERE raw.snapshot_at IS NOT NULL
        UNION ALL
        SELECT NULL, '{}' WHERE raw.snapshot_at IS NULL AND raw_history.since = '-infinity'
        UNION ALL
        SELECT i.snapshot_at, i.metrics WHERE raw.snapshot_at IS NULL AND raw_history.since > '-infinity'
    ) expected
),
unequal AS MATERIALIZED (
    SELECT instance_id, snapshot_at, app_slug, cursor, stored, flattened
    FROM expected_snapshots
    WHERE sent_leaves IS NULL AND stored <> flattened
),
-- use: expected_leaves
after AS MATERIALIZED (
    SELECT
        s.instance_id, s.app_slug, s.app_version, s.environment, s.status, s.first_seen_at, s.last_seen_at,
        s.snapshot_at, s.metrics, coalesce(s.sent_leaves, e.leaves, s.flattened) AS leaves
    FROM expected_snapshots s
    LEFT JOIN expected_leaves e ON e.instance_id = s.instance_id
),

-- part: chart_history
-- The sources of the charts. `runs`: the rolled-up raw snapshots with the hours' ends between which each counts.
-- `check_range`: values of charts are compared from `since` on. `corrected_hour`: `since`, if the hours before it are
-- stored.
revocations AS MATERIALIZED (
    SELECT instance_id, revoked_at FROM instances WHERE revoked_at IS NOT NULL
),
-- use: raw_history
check_range AS MATERIALIZED (
    SELECT
        greatest(head.frozen_until, date_trunc(
            'day', raw_history.since + %(active_window)s::interval + interval '1 day' - interval '1 microsecond', 'UTC'
        )) AS since,
        head.*
    FROM raw_history
    CROSS JOIN series_head head
),
runs AS MATERIALIZED (
    SELECT
        s.app_slug, coalesce(s.leaves, s.metrics) AS leaves,
        CASE WHEN s.version_refused THEN NULL ELSE s.app_version END AS app_version,
        date_trunc('hour', s.snapshot_at + interval '1 hour' - interval '1 microsecond') AS starts_at,
        date_trunc('hour', least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + %(active_window)s::interval,
            r.revoked_at
        ) + interval '1 hour' - interval '1 microsecond') AS ends_at
    FROM snapshots s
    LEFT JOIN revocations r ON r.instance_id = s.instance_id
    WHERE s.cursor <= (SELECT cursor FROM check_range)
),
corrected_hour AS MATERIALIZED (
    SELECT since AS at FROM check_range
    WHERE since > frozen_until AND since <= closed_until AND hours_since <= since - interval '1 day'
),

-- part: hour_weight
-- The weight of the hour `point` in the comparison of charts.
                CASE
                    WHEN point.at > check_range.since AND point.at >= check_range.hours_since
                    THEN hash_record_extended(ROW(point.at), %(hour_seed)s::bigint) >> 8
                    ELSE 0
                END
