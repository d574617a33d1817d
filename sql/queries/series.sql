-- name: is_behind
-- Whether there may be snapshots to roll up. An idle server asks every second, and to plan `roll_up` takes longer.
SELECT (SELECT cursor FROM feed_head) > (SELECT cursor FROM series_head);

-- name: select_settled_cursor
-- The feed's cursor, up to which all snapshots are visible. A transaction holds the writers' lock until the last machine
-- of a cluster has committed it, some time after the coordinator. A cursor that is read without the lock may belong to
-- snapshots that are not visible yet.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT cursor FROM feed_head;

-- name: roll_up
-- Rolls snapshots up into the series, in the order in which they were stored: `limit` of them, or as many as have
-- `max_leaves` leaves together, and up to a batch more, none after `until`. Returns whether there are more. Each
-- snapshot ends the run of the snapshot before it in time. A late snapshot does the same in the past, which corrects the
-- series there. (A window frame from the newest snapshot backwards grows at one end only, so its minimum is never
-- recomputed. A recomputation would be slow, because a late snapshot may have a month of others after it.) The statement
-- searches for neighbours nearby first, and reads snapshots install by install; OFFSET 0 forces the planner to do so. The
-- reason: the cost of a step must not grow with the history. All of `found` are joins of snapshots by their install, so a
-- cluster computes it where the snapshots are.
-- A step's end is searched without `until`: the planner takes a range between two unknown cursors for a few rows, and would
-- sort all snapshots that are not rolled up yet. A small snapshot is taken to have a leaf for each 16 bytes, which it
-- hardly exceeds, because counting takes a fifth of the step's time.
-- The planner expects many sums, and would sort tens of thousands of rows for the few dozen that there are, unless hashes
-- have more memory; that takes half as long again.
SELECT pg_advisory_xact_lock({rollup_lock});
SET LOCAL hash_mem_multiplier = 16;
WITH head AS MATERIALIZED (
    SELECT cursor FROM series_head WHERE NOT stale
),
next_step AS MATERIALIZED (
    SELECT min(cursor) AS cursor
    FROM (
        SELECT cursor, row_number() OVER stored AS position, sum(leaf_count) OVER stored AS leaves
        FROM (
            SELECT
                cursor,
                CASE
                    WHEN pg_column_size(coalesce(leaves, metrics)) < 1000
                    THEN pg_column_size(coalesce(leaves, metrics)) / 16
                    ELSE (SELECT count(*) FROM jsonb_object_keys(coalesce(leaves, metrics)))
                END AS leaf_count
            FROM snapshots
            WHERE cursor > (SELECT cursor FROM head)
            ORDER BY cursor
            LIMIT %(limit)s::bigint + 1
        ) candidates
        WINDOW stored AS (ORDER BY cursor ROWS UNBOUNDED PRECEDING)
    ) counted
    WHERE position > %(limit)s::bigint OR leaves > %(max_leaves)s::bigint
),
step_end AS MATERIALIZED (
    SELECT least((SELECT cursor FROM next_step), %(until)s::bigint) AS cursor
),
found AS MATERIALIZED (
    SELECT
        s.instance_id, s.snapshot_at, s.app_slug, s.app_version, coalesce(s.leaves, s.metrics) AS leaves,
        s.cursor <= (SELECT cursor FROM head) AS was_rolled,
        min(s.snapshot_at) FILTER (WHERE s.cursor <= (SELECT cursor FROM head)) OVER (
            PARTITION BY s.instance_id ORDER BY s.snapshot_at DESC
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS next_rolled_at,
        lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at) AS next_at
    FROM (
        SELECT
            f.instance_id,
            coalesce(just_before.snapshot_at, before.snapshot_at, f.oldest) AS oldest,
            coalesce(just_after.snapshot_at, after.snapshot_at, f.newest) AS newest
        FROM (
            SELECT instance_id, min(snapshot_at) AS oldest, max(snapshot_at) AS newest
            FROM snapshots
            WHERE cursor > (SELECT cursor FROM head) AND cursor <= (SELECT cursor FROM step_end)
            GROUP BY instance_id
        ) f
        LEFT JOIN LATERAL (
            SELECT max(s.snapshot_at) AS snapshot_at FROM snapshots s
            WHERE
                s.instance_id = f.instance_id
                AND s.snapshot_at < f.oldest AND s.snapshot_at >= f.oldest - interval '3 hours'
                AND s.snapshot_at >= f.oldest - (SELECT active_window FROM settings)
                AND s.cursor <= (SELECT cursor FROM step_end)
        ) just_before ON TRUE
        LEFT JOIN LATERAL (
            SELECT max(s.snapshot_at) AS snapshot_at FROM snapshots s
            WHERE
                just_before.snapshot_at IS NULL AND s.instance_id = f.instance_id
                AND s.snapshot_at < f.oldest AND s.snapshot_at >= f.oldest - (SELECT active_window FROM settings)
                AND s.cursor <= (SELECT cursor FROM step_end)
        ) before ON TRUE
        LEFT JOIN LATERAL (
            SELECT min(s.snapshot_at) AS snapshot_at FROM snapshots s
            WHERE
                s.instance_id = f.instance_id
                AND s.snapshot_at > f.newest AND s.snapshot_at <= f.newest + interval '3 hours'
                AND s.snapshot_at <= f.newest + (SELECT active_window FROM settings)
                AND s.cursor <= (SELECT cursor FROM step_end)
        ) just_after ON TRUE
        LEFT JOIN LATERAL (
            SELECT min(s.snapshot_at) AS snapshot_at FROM snapshots s
            WHERE
                just_after.snapshot_at IS NULL AND s.instance_id = f.instance_id
                AND s.snapshot_at > f.newest AND s.snapshot_at <= f.newest + (SELECT active_window FROM settings)
                AND s.cursor <= (SELECT cursor FROM step_end)
        ) after ON TRUE
    ) spans
    CROSS JOIN LATERAL (
        SELECT
            instance_id, snapshot_at, app_slug, leaves, metrics, cursor,
            CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version
        FROM snapshots
        WHERE
            instance_id = spans.instance_id AND snapshot_at BETWEEN spans.oldest AND spans.newest
            AND cursor <= (SELECT cursor FROM step_end)
        OFFSET 0
    ) s
),
runs AS MATERIALIZED (
    SELECT
        f.app_slug, f.app_version, f.leaves, f.snapshot_at AS starts_at,
        f.was_rolled, least(f.next_rolled_at, f.snapshot_at + settings.active_window, i.revoked_at) AS ended_at,
        TRUE AS is_rolled, least(f.next_at, f.snapshot_at + settings.active_window, i.revoked_at) AS ends_at
    FROM found f
    JOIN instances i ON i.instance_id = f.instance_id
    CROSS JOIN settings
),
-- use: hours
-- use: days
-- use: series_updated
versions AS (
    INSERT INTO versions_seen AS existing (instance_id, app_version, app_slug, first_at)
    SELECT instance_id, app_version, (array_agg(app_slug ORDER BY snapshot_at))[1], min(snapshot_at)
    FROM found
    WHERE NOT was_rolled AND app_version IS NOT NULL
    GROUP BY instance_id, app_version
    ON CONFLICT (instance_id, app_version) DO UPDATE SET app_slug = excluded.app_slug, first_at = excluded.first_at
    WHERE excluded.first_at < existing.first_at
),
advanced AS (
    UPDATE series_head SET cursor = (SELECT cursor FROM step_end) WHERE cursor < (SELECT cursor FROM step_end) AND NOT stale
)
SELECT cursor IS NOT NULL AS has_more FROM next_step;

-- name: close_day
-- Closes the next day, if it is over: stores the value of each KPI at its end, and returns that midnight. Late
-- snapshots correct closed days too.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH due AS MATERIALIZED (
    SELECT closed_until, closed_until + interval '1 day' AS at FROM series_head WHERE closed_until + interval '1 day' <= now()
),
closed AS (
    INSERT INTO series_days (app_slug, metric_type, key, value, at, total, instances)
    SELECT k.app_slug, k.metric_type, k.key, k.value, due.at, sum(k.total), sum(k.instances)
    FROM due
    CROSS JOIN LATERAL (
        SELECT app_slug, metric_type, key, value, total, instances FROM series_days WHERE at = due.closed_until
        UNION ALL
        SELECT app_slug, metric_type, key, value, total, instances FROM series_hours
        WHERE at > due.closed_until AND at <= due.at
    ) k
    GROUP BY k.app_slug, k.metric_type, k.key, k.value, due.at
    HAVING sum(k.total) <> 0 OR sum(k.instances) <> 0
)
UPDATE series_head SET closed_until = due.at FROM due
RETURNING series_head.closed_until;

-- name: is_stale
-- Whether the active window has changed and the series must be computed again.
SELECT stale FROM series_head;

-- name: delete_stale
-- Deletes series that were rolled up with a previous active window, up to `limit` rows of hours and of days. Once none
-- is left, the rollup starts again with the first raw snapshot. Days that cannot be computed from the raw snapshots
-- stay unchanged. Returns the number of deleted rows.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH head AS MATERIALIZED (
    SELECT date_trunc('day', raw_since + settings.active_window + interval '1 day' - interval '1 microsecond') AS frozen_until
    FROM series_head
    CROSS JOIN settings
    WHERE stale
),
hours_deleted AS (
    DELETE FROM series_hours
    WHERE ctid = ANY(ARRAY(SELECT h.ctid FROM series_hours h WHERE EXISTS (SELECT FROM head) LIMIT %(limit)s))
    RETURNING 1
),
days_deleted AS (
    DELETE FROM series_days
    WHERE ctid = ANY(ARRAY(SELECT d.ctid FROM series_days d, head WHERE d.at >= head.frozen_until LIMIT %(limit)s))
    RETURNING 1
),
total AS (
    SELECT (SELECT count(*) FROM hours_deleted) + (SELECT count(*) FROM days_deleted) AS deleted
),
restarted AS (
    UPDATE series_head SET stale = FALSE, cursor = 0, frozen_until = head.frozen_until
    FROM head, total
    WHERE total.deleted = 0
)
SELECT deleted FROM total;

-- name: set_raw_since
-- Records that raw snapshots before this time are about to be dropped.
SELECT pg_advisory_xact_lock({rollup_lock});
UPDATE series_head SET raw_since = greatest(raw_since, %(until)s::timestamptz)
RETURNING raw_since;

-- name: freeze_days
-- Freezes days that included dropped snapshots, because snapshots may arrive now whose neighbours in time are dropped.
SELECT pg_advisory_xact_lock({rollup_lock});
UPDATE series_head SET frozen_until = greatest(
    frozen_until, date_trunc('day', raw_since + settings.active_window + interval '1 day' - interval '1 microsecond')
)
FROM settings;

-- name: select_head (prepared)
-- The midnight up to which days are closed, and the one up to which they are frozen. Values at times within frozen days
-- are not known.
SELECT closed_until, nullif(frozen_until, '-infinity') AS frozen_until FROM series_head;

-- name: select_current
-- The present values of an application's metrics: numbers and booleans, of these keys or of those that most
-- instances send.
WITH
-- use: due_instances
-- use: deltas
current_tallies AS (
    SELECT metric_type, key, total, instances FROM tallies
    WHERE app_slug = %(app)s AND metric_type IN ('number', 'boolean')
    UNION ALL
    SELECT metric_type, key, total, instances FROM deltas
    WHERE metric_type IN ('number', 'boolean')
)
SELECT metric_type, key, '' AS value, trim_scale(sum(total)) AS total, sum(instances) AS instances
FROM current_tallies
WHERE %(keys)s::text[] IS NULL OR key = ANY(%(keys)s::text[])
GROUP BY metric_type, key
HAVING sum(instances) > 0
ORDER BY sum(instances) DESC, key, metric_type
LIMIT %(limit)s::bigint;

-- name: select_current_versions
-- The number of instances of an application with a current snapshot of each version, and first of other_versions: those
-- whose version is beyond the limit.
WITH
-- use: due_instances
-- use: deltas
current_tallies AS (
    SELECT metric_type, value, instances FROM tallies
    WHERE app_slug = %(app)s AND metric_type IN ('version', 'other_versions')
    UNION ALL
    SELECT metric_type, value, instances FROM deltas WHERE metric_type IN ('version', 'other_versions')
)
SELECT metric_type, '' AS key, value, 0::numeric AS total, sum(instances) AS instances
FROM current_tallies
GROUP BY metric_type, value
HAVING sum(instances) > 0
ORDER BY metric_type = 'version', sum(instances) DESC, value
LIMIT %(limit)s::bigint;

-- name: select_past
-- The values at points in the past. There are two kinds of points, and one row for each series key and kind. `positions`
-- are the positions of the points (from 1); `totals` and `instances` have the same order. `closed` points are
-- midnights, and their values are absolute (`is_closed`). `open` points are ascending, and their values are the changes
-- since the point before; the change at the first point is since the midnight `base` before it. Position 0 is the absolute
-- value at `base`. Hours are read by series key, so the cost depends on these keys and not on the hours of all
-- applications.
SELECT
    metric_type, key, value, is_closed,
    array_agg(position) AS positions, array_agg(total) AS totals, array_agg(instances) AS instances
FROM (
    SELECT
        metric_type, key, value, TRUE AS is_closed, width_bucket(at, %(closed)s::timestamptz[]) AS position, total, instances
    FROM series_days
    WHERE
        app_slug = %(app)s AND metric_type = ANY(%(metric_types)s::text[]) AND key = ANY(%(keys)s::text[])
        AND at = ANY(%(closed)s::timestamptz[])
    UNION ALL
    SELECT metric_type, key, value, FALSE, 0, total, instances
    FROM series_days
    WHERE
        app_slug = %(app)s AND metric_type = ANY(%(metric_types)s::text[]) AND key = ANY(%(keys)s::text[])
        AND at = %(base)s::timestamptz
    UNION ALL
    SELECT n.metric_type, n.key, deltas.value, FALSE, deltas.position, deltas.total, deltas.instances
    FROM (SELECT metric_type, key FROM unnest(%(metric_types)s::text[]) metric_type CROSS JOIN unnest(%(keys)s::text[]) key) n
    CROSS JOIN LATERAL (
        SELECT
            h.value, width_bucket(h.at - interval '1 microsecond', %(open)s::timestamptz[]) + 1 AS position,
            sum(h.total) AS total, sum(h.instances)::bigint AS instances
        FROM series_hours h
        WHERE
            h.app_slug = %(app)s AND h.metric_type = n.metric_type AND h.key = n.key
            AND h.at > %(base)s::timestamptz AND h.at <= %(last)s::timestamptz
        GROUP BY h.value, 2
    ) deltas
) samples
GROUP BY metric_type, key, value, is_closed;

-- name: delete_old_hours
-- Deletes hours whose days are closed, and that are before the oldest raw snapshots and before every chart with steps
-- within days. The oldest are deleted first.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH bound AS MATERIALIZED (
    SELECT least(now() - %(retention)s::interval, closed_until) AS at FROM series_head
),
head_updated AS (
    UPDATE series_head SET hours_since = bound.at FROM bound WHERE hours_since < bound.at
)
DELETE FROM series_hours
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM series_hours WHERE at < (SELECT at FROM bound) ORDER BY at LIMIT %(limit)s
))
RETURNING 1 AS deleted;

-- name: delete_zero_rows
-- Deletes rows whose sums have become zero, such as those of a key that only an erased install had.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH hours_deleted AS (
    DELETE FROM series_hours
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM series_hours WHERE instances = 0 AND total = 0 LIMIT %(limit)s))
    RETURNING 1
),
days_deleted AS (
    DELETE FROM series_days
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM series_days WHERE instances = 0 AND total = 0 LIMIT %(limit)s))
    RETURNING 1
)
SELECT 1 AS deleted FROM hours_deleted
UNION ALL
SELECT 1 FROM days_deleted
LIMIT %(limit)s;

-- name: select_past_distributions
-- The distributions of numbers at ascending points in the past, from the raw snapshots, because sums do not contain
-- them. The statement reads all raw snapshots of that time, of every instance that belongs or belonged to the
-- application. A point has no distribution if some of its raw snapshots have been deleted.
WITH runs AS (
    SELECT
        s.app_slug, coalesce(s.leaves, s.metrics) AS leaves, s.snapshot_at AS starts_at,
        least(
            lead(s.snapshot_at) OVER (PARTITION BY s.instance_id ORDER BY s.snapshot_at),
            s.snapshot_at + settings.active_window,
            i.revoked_at
        ) AS ends_at
    FROM snapshots s
    JOIN instances i ON i.instance_id = s.instance_id AND (i.app_slug = %(app)s OR i.previous_app_slug IS NOT NULL)
    CROSS JOIN settings
    WHERE s.snapshot_at > (%(points)s::timestamptz[])[1] - settings.active_window AND s.snapshot_at <= now()
),
metric_values AS (
    SELECT p.at, k.key, (r.leaves -> k.key)::numeric AS value
    FROM runs r
    CROSS JOIN LATERAL unnest((%(points)s::timestamptz[])[
        width_bucket(r.starts_at - interval '1 microsecond', %(points)s::timestamptz[]) + 1
        : width_bucket(r.ends_at - interval '1 microsecond', %(points)s::timestamptz[])
    ]) p (at)
    CROSS JOIN unnest(%(keys)s::text[]) k (key)
    CROSS JOIN settings
    CROSS JOIN series_head head
    WHERE
        r.app_slug = %(app)s AND jsonb_typeof(r.leaves -> k.key) = 'number'
        AND p.at - settings.active_window >= head.raw_since
),
sorted AS (
    SELECT at, key, count(*) AS instances, array_agg(value ORDER BY value) AS sorted_values
    FROM metric_values
    GROUP BY at, key
)
SELECT
    at, key,
-- use: distribution
FROM sorted;
