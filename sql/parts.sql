-- Parts that several statements share: lists of CTEs, inserted in place of a line `-- use: name`. A statement that
-- uses one of the first two defines two CTEs before them: `before`, the present instances, rows of `instance_states`
-- (none for a new instance), and `after`, their new state: the same columns without those that `evaluated` computes
-- (none for a deleted instance).

-- part: deltas
-- `evaluated`: the rows of `after` with the columns that follow from the settings at this moment. `deltas`: the
-- change of each tally.
evaluated AS MATERIALIZED (
    SELECT
        a.*,
        lower(a.environment) <> ALL(settings.uncounted_environments)
            AND a.leaves -> 'sys_ephemeral' IS DISTINCT FROM 'true'::jsonb AS counted,
        CASE WHEN a.status = 'active' THEN windows.elapsed ELSE 0 END::smallint AS elapsed_windows,
        a.status <> 'revoked' AND coalesce(a.snapshot_at + settings.active_window > now(), FALSE) AS reporting,
        least(
            CASE WHEN a.status = 'active' THEN a.last_seen_at + settings.activity_windows[windows.elapsed + 1] END,
            CASE
                WHEN a.status <> 'revoked' AND a.snapshot_at + settings.active_window > now()
                THEN a.snapshot_at + settings.active_window
            END
        ) AS refresh_at
    FROM after a
    CROSS JOIN settings
    CROSS JOIN LATERAL (
        SELECT coalesce(
            width_bucket(now() - a.last_seen_at, settings.activity_windows), cardinality(settings.activity_windows)
        ) AS elapsed
    ) windows
),
-- `states`: both states of each instance. `is_same`: it stays in the same sums, so only leaves that differ change
-- them; most are equal. `|| '{}'` takes leaves out of TOAST once, not once for each key.
states AS MATERIALIZED (
    SELECT
        b.app_slug AS old_app, e.app_slug AS new_app, b.counted AS old_counted, e.counted AS new_counted,
        b.app_version AS old_version, e.app_version AS new_version, b.reporting AS old_reporting,
        e.reporting AS new_reporting, b.status AS old_status, e.status AS new_status,
        b.elapsed_windows AS old_windows, e.elapsed_windows AS new_windows, b.first_seen_at AS old_first,
        e.first_seen_at AS new_first,
        CASE WHEN b.reporting THEN b.leaves || '{}' END AS old_leaves,
        CASE WHEN e.reporting THEN e.leaves || '{}' END AS new_leaves,
        b.app_slug = e.app_slug AND b.counted = e.counted AS is_same
    FROM before b
    FULL JOIN evaluated e ON e.instance_id = b.instance_id
),
changed_states AS MATERIALIZED (
    SELECT side.*
    FROM states s
    CROSS JOIN LATERAL (
        VALUES
            (s.old_app, s.old_counted, s.old_version, s.old_reporting, s.old_status, s.old_windows, s.old_first, -1),
            (s.new_app, s.new_counted, s.new_version, s.new_reporting, s.new_status, s.new_windows, s.new_first, 1)
    ) side (app_slug, counted, app_version, reporting, status, elapsed_windows, first_seen_at, weight)
    WHERE
        side.app_slug IS NOT NULL
        AND (s.old_app, s.old_counted, s.old_version, s.old_reporting, s.old_status, s.old_windows, s.old_first)
        IS DISTINCT FROM
        (s.new_app, s.new_counted, s.new_version, s.new_reporting, s.new_status, s.new_windows, s.new_first)
),
changed_leaves AS (
    SELECT
        s.new_app AS app_slug, s.new_counted AS counted, leaf.key, leaf.value AS new_value,
        CASE WHEN s.is_same THEN s.old_leaves -> leaf.key END AS old_value
    FROM states s
    CROSS JOIN LATERAL jsonb_each(s.new_leaves) leaf
    WHERE CASE WHEN s.is_same THEN s.old_leaves -> leaf.key END IS DISTINCT FROM leaf.value
    UNION ALL
    SELECT s.old_app, s.old_counted, leaf.key, NULL, leaf.value
    FROM states s
    CROSS JOIN LATERAL jsonb_each(
        CASE
            WHEN s.is_same AND s.new_leaves IS NOT NULL
            THEN s.old_leaves - ARRAY(SELECT jsonb_object_keys(s.new_leaves))
            ELSE s.old_leaves
        END
    ) leaf
),
summed AS MATERIALIZED (
    SELECT
        app_slug, metric_type, key, value,
        sum(total) AS total,
        sum(weight) AS instances,
        coalesce(sum(total) FILTER (WHERE counted), 0) AS counted_total,
        coalesce(sum(weight) FILTER (WHERE counted), 0) AS counted_instances
    FROM (
        SELECT
            app_slug, counted, weight, 'status' AS metric_type,
            CASE WHEN status = 'pending' AND first_seen_at IS NULL THEN 'unproven' ELSE status END AS key,
            elapsed_windows::text AS value, 0::numeric AS total
        FROM changed_states
        UNION ALL
        SELECT
            app_slug, counted, weight, CASE WHEN app_version IS NULL THEN 'other_versions' ELSE 'version' END, '',
            coalesce(app_version, ''), 0
        FROM changed_states
        WHERE reporting
        UNION ALL
        SELECT
            app_slug, counted, weight, 'new', to_char(first_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24'), '', 0
        FROM changed_states
        WHERE first_seen_at IS NOT NULL
        UNION ALL
        SELECT
            c.app_slug, c.counted, side.weight, jsonb_typeof(side.value), c.key,
            CASE jsonb_typeof(side.value) WHEN 'string' THEN side.value #>> '{}' ELSE '' END,
            CASE jsonb_typeof(side.value)
                WHEN 'number' THEN side.weight * side.value::numeric
                WHEN 'boolean' THEN side.weight * (side.value = 'true'::jsonb)::int
                ELSE 0
            END
        FROM changed_leaves c
        CROSS JOIN LATERAL (VALUES (c.old_value, -1), (c.new_value, 1)) side (value, weight)
        WHERE side.value IS NOT NULL
    ) parts
    GROUP BY app_slug, metric_type, key, value
    HAVING
        sum(total) <> 0 OR sum(weight) <> 0 OR sum(total) FILTER (WHERE counted) <> 0
        OR sum(weight) FILTER (WHERE counted) <> 0
),
deltas AS MATERIALIZED (
    SELECT * FROM summed
    UNION ALL
    SELECT app_slug, 'strings', key, '', 0, sum(instances), 0, sum(counted_instances)
    FROM summed
    WHERE metric_type = 'string'
    GROUP BY app_slug, key
    HAVING sum(instances) <> 0 OR sum(counted_instances) <> 0
),

-- part: tallies_updated
-- Adds `deltas` to the tallies. Requires the writers' lock.
tallies_updated AS (
    INSERT INTO tallies AS existing (
        app_slug, metric_type, key, value, total, instances, counted_total, counted_instances
    )
    SELECT app_slug, metric_type, key, value, total, instances, counted_total, counted_instances FROM deltas
    ON CONFLICT (app_slug, metric_type, key, value) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances,
        counted_total = existing.counted_total + excluded.counted_total,
        counted_instances = existing.counted_instances + excluded.counted_instances
),

-- part: absences_ended
-- Records the absences that end with this request: the instances of `before` that were lost.
absences_ended AS (
    INSERT INTO absences (instance_id, lost_at, returned_at)
    SELECT b.instance_id, b.last_seen_at + (SELECT active_window FROM settings), now()
    FROM before b
    JOIN evaluated e USING (instance_id)
    WHERE
        b.status = 'active' AND b.last_seen_at <= now() - (SELECT active_window FROM settings)
        AND e.last_seen_at > b.last_seen_at
    ON CONFLICT (instance_id, lost_at) DO NOTHING
),

-- part: departed
-- The instances of `before` that leave their application.
departed AS MATERIALIZED (
    SELECT b.instance_id, b.app_slug FROM before b JOIN after a USING (instance_id) WHERE a.app_slug <> b.app_slug
),

-- part: feed_numbered
-- Advances the feed by the instances of `after`, and by another cursor for each of those that are `departed`: the
-- application that it left has the one before its own. `numbered`: the cursors by instance.
numbered AS MATERIALIZED (
    SELECT
        a.instance_id,
        head.cursor + row_number() OVER by_id + count(d.instance_id) OVER by_id AS cursor
    FROM after a
    LEFT JOIN departed d ON d.instance_id = a.instance_id
    CROSS JOIN feed_head head
    WINDOW by_id AS (ORDER BY a.instance_id ROWS UNBOUNDED PRECEDING)
),
feed_advanced AS (
    UPDATE feed_head SET cursor = (SELECT max(n.cursor) FROM numbered n)
    WHERE EXISTS (SELECT FROM numbered)
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug, changed_app)
    SELECT n.cursor - 1, d.instance_id, d.app_slug, TRUE
    FROM departed d
    JOIN numbered n ON n.instance_id = d.instance_id
),

-- part: after_unchanged
-- `after` where nothing but time has changed.
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM before
),

-- part: due_instances
-- `before` and `after` of the instances whose evaluation has changed by the passing of time and that no refresh has
-- processed yet, of one application or of all. Readers add the resulting deltas to the tallies, so their answers are
-- correct at their moment. There are usually none.
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE refresh_at <= now() AND (%(app)s::text IS NULL OR app_slug = %(app)s)
),
-- use: after_unchanged

-- part: hours
-- `hours`: the changes of KPIs at hours' ends that follow from `runs`. A run is a snapshot with the end of its
-- validity, before this statement (`was_rolled`: in the series, `ended_at`) and after it (`is_rolled`, `ends_at`).
points AS (
    SELECT r.app_slug, r.app_version, r.leaves, p.at, p.weight
    FROM (
        SELECT *, was_rolled AND first < old_end AS had_points, is_rolled AND first < new_end AS has_points
        FROM (
            SELECT
                *,
                date_trunc('hour', starts_at + interval '1 hour' - interval '1 microsecond') AS first,
                date_trunc('hour', ended_at + interval '1 hour' - interval '1 microsecond') AS old_end,
                date_trunc('hour', ends_at + interval '1 hour' - interval '1 microsecond') AS new_end
            FROM runs
        ) hourly_runs
    ) r
    CROSS JOIN LATERAL (
        VALUES
            (r.first, r.has_points::int - r.had_points::int),
            (r.old_end, CASE WHEN r.had_points AND (NOT r.has_points OR r.old_end <> r.new_end) THEN 1 ELSE 0 END),
            (r.new_end, CASE WHEN r.has_points AND (NOT r.had_points OR r.old_end <> r.new_end) THEN -1 ELSE 0 END)
    ) p (at, weight)
    WHERE p.weight <> 0
),
hours AS MATERIALIZED (
    SELECT p.app_slug, each.metric_type, each.key, each.value, p.at, sum(each.total) AS total, sum(p.weight) AS instances
    FROM points p
    CROSS JOIN LATERAL (
        SELECT
            jsonb_typeof(leaf.value) AS metric_type, leaf.key, '' AS value,
            CASE jsonb_typeof(leaf.value)
                WHEN 'number' THEN p.weight * leaf.value::numeric
                ELSE p.weight * (leaf.value = 'true'::jsonb)::int
            END AS total
        FROM jsonb_each(p.leaves) leaf
        WHERE jsonb_typeof(leaf.value) <> 'string'
        UNION ALL
        SELECT
            CASE WHEN p.app_version IS NULL THEN 'other_versions' ELSE 'version' END, '', coalesce(p.app_version, ''), 0
    ) each
    GROUP BY p.app_slug, each.metric_type, each.key, each.value, p.at
    HAVING sum(each.total) <> 0 OR sum(p.weight) <> 0
),

-- part: days
-- `days`: the changes of the KPIs at the ends of closed days that follow from `hours`.
since_days AS (
    SELECT
        app_slug, metric_type, key, value, day,
        sum(sum(total)) OVER by_day AS total,
        sum(sum(instances)) OVER by_day AS instances,
        lead(day) OVER by_day AS next_day
    FROM (
        SELECT *, date_trunc('day', at + interval '1 day' - interval '1 microsecond') AS day FROM hours
    ) each
    GROUP BY app_slug, metric_type, key, value, day
    WINDOW by_day AS (PARTITION BY app_slug, metric_type, key, value ORDER BY day)
),
days AS MATERIALIZED (
    SELECT s.app_slug, s.metric_type, s.key, s.value, d.day AS at, s.total, s.instances
    FROM since_days s
    CROSS JOIN LATERAL generate_series(
        s.day, least(s.next_day - interval '1 day', (SELECT closed_until FROM series_head)), interval '1 day'
    ) d (day)
    WHERE (s.total <> 0 OR s.instances <> 0) AND d.day >= (SELECT frozen_until FROM series_head)
),

-- part: series_updated
-- Adds `hours`, those that are still stored, and `days` to the series. Requires the rollup's lock.
hours_updated AS (
    INSERT INTO series_hours AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM hours
    WHERE at >= (SELECT hours_since FROM series_head)
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),
days_updated AS (
    INSERT INTO series_days AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM days
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),

-- part: series_reduced
-- The same for snapshots that are deleted: rows that become zero are deleted with them.
hours_deleted AS (
    DELETE FROM series_hours s
    USING hours h
    WHERE
        (s.app_slug, s.metric_type, s.key, s.value, s.at) = (h.app_slug, h.metric_type, h.key, h.value, h.at)
        AND s.total + h.total = 0 AND s.instances + h.instances = 0
    RETURNING s.app_slug, s.metric_type, s.key, s.value, s.at
),
hours_updated AS (
    INSERT INTO series_hours AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM hours
    WHERE
        at >= (SELECT hours_since FROM series_head)
        AND (app_slug, metric_type, key, value, at) NOT IN (SELECT * FROM hours_deleted)
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),
days_deleted AS (
    DELETE FROM series_days s
    USING days d
    WHERE
        (s.app_slug, s.metric_type, s.key, s.value, s.at) = (d.app_slug, d.metric_type, d.key, d.value, d.at)
        AND s.total + d.total = 0 AND s.instances + d.instances = 0
    RETURNING s.app_slug, s.metric_type, s.key, s.value, s.at
),
days_updated AS (
    INSERT INTO series_days AS existing (app_slug, metric_type, key, value, at, total, instances)
    SELECT app_slug, metric_type, key, value, at, total, instances FROM days
    WHERE (app_slug, metric_type, key, value, at) NOT IN (SELECT * FROM days_deleted)
    ON CONFLICT (app_slug, metric_type, key, value, at) DO UPDATE SET
        total = existing.total + excluded.total,
        instances = existing.instances + excluded.instances
),

-- part: raw_history
-- `raw_history`: the time since which all raw snapshots are stored; -infinity if none has been dropped.
raw_history AS MATERIALIZED (
    SELECT raw_since AS since FROM series_head
),

-- part: keys_admitted
-- Decides which of `sent_keys`, `sent_values` and (likewise) `sent_versions` are aggregated, and adds the new ones up to the limits: first the keys
-- for which the vendor made a setting, which are always added (as is the one that decides what the headline counts), then those of the most instances. `refused_keys` and
-- `refused_values` are the others. OFFSET 0 makes each look-up one read of an index. Requires the writers' lock.
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
    INSERT INTO aggregated_versions (app_slug, app_version)
    SELECT app_slug, app_version FROM ranked_versions WHERE is_added
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

-- part: current_snapshots
-- `current_snapshots`: the stored snapshots that are the current ones of the instances in `before`.
current_snapshots AS MATERIALIZED (
    SELECT instance_id, snapshot_at, app_slug, coalesce(leaves, metrics) AS leaves
    FROM snapshots
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM before))
        AND snapshot_at = ANY(ARRAY(SELECT snapshot_at FROM before))
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
-- `after`: the state of the instances in `before` that follows from their newest raw snapshots, `newest_snapshots`. An instance without
-- snapshots has none, unless its snapshots may have been dropped (`raw_history`): then its present state is kept. The
-- leaves are those of the snapshot, or those that an instance kept that has changed its application since.
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

-- part: distribution
-- The distribution of `sorted_values`, a sorted array of `instances` values: minimum, p50 and p90 (interpolated between the two
-- nearest values), maximum.
    sorted_values[1] AS min,
    trim_scale(sorted_values[1 + floor(0.5 * (instances - 1))::int] + (0.5 * (instances - 1) - floor(0.5 * (instances - 1)))
        * (sorted_values[1 + ceil(0.5 * (instances - 1))::int] - sorted_values[1 + floor(0.5 * (instances - 1))::int])) AS p50,
    trim_scale(sorted_values[1 + floor(0.9 * (instances - 1))::int] + (0.9 * (instances - 1) - floor(0.9 * (instances - 1)))
        * (sorted_values[1 + ceil(0.9 * (instances - 1))::int] - sorted_values[1 + floor(0.9 * (instances - 1))::int])) AS p90,
    sorted_values[instances] AS max

-- part: instance_filter
-- The conditions of a list of instances.
            (%(slug)s::text IS NULL OR app_slug = %(slug)s)
            AND (%(status)s::text IS NULL OR status = %(status)s)
            AND (%(version_rank)s::text IS NULL OR version_rank = %(version_rank)s)
            AND (%(environment)s::text IS NULL OR environment = %(environment)s)
            AND (
                %(pattern)s::text IS NULL OR instance_id::text ILIKE %(pattern)s OR app_version ILIKE %(pattern)s
                OR environment ILIKE %(pattern)s OR deployment_mode ILIKE %(pattern)s
            )

-- part: counted_in_headline
-- Whether the headline counts an instance, as in view `instance_items`.
            counted AND status = 'active'
            AND coalesce(last_seen_at + (SELECT active_window FROM settings) > now(), FALSE)

-- part: sort_keys
-- `keyed`: the selected instances with their sort keys; no column of a key is null. In both directions (`direction` is 1
-- or -1) numbers come before booleans, booleans before texts, and missing values last. Texts are compared by code points,
-- so the order is the same on every server. Versions are compared by their rank, then by their spelling; the character
-- between the two occurs in no rank. `metric` is a metric's key if `column` names no column, and
-- has no value in `hiding_apps`. The planner removes the
-- branches of other columns. OFFSET 0 evaluates a leaf once for each row and not once for each comparison.
-- One parallel worker halves the time if a core is idle, which PostgreSQL's cost model does not expect. More workers
-- would take cores from the intake.
SET LOCAL statement_timeout = '10s';
SET LOCAL max_parallel_workers_per_gather = 1;
SET LOCAL parallel_tuple_cost = 0;
WITH valued AS (
    SELECT
        instance_id,
        CASE %(column)s::text
            WHEN 'app_name' THEN app_name
            WHEN 'app_slug' THEN app_slug
            WHEN 'app_version' THEN version_rank || E'\x01' || app_version
            WHEN 'environment' THEN environment
            WHEN 'status' THEN status
            WHEN 'deployment_mode' THEN deployment_mode
            WHEN 'os_arch' THEN os_arch
        END AS column_text,
        CASE %(column)s::text
            WHEN 'last_seen_at' THEN last_seen_at
            WHEN 'first_seen_at' THEN first_seen_at
            WHEN 'snapshot_at' THEN snapshot_at
        END AS column_time,
        CASE WHEN %(column)s::text = 'counted' THEN
-- use: counted_in_headline
        END AS column_flag,
        CASE
            WHEN %(metric)s::text IS NOT NULL AND app_slug <> ALL(%(hiding_apps)s::text[])
            THEN coalesce(leaves, metrics) -> %(metric)s::text
        END AS leaf
    FROM instances
    WHERE
-- use: instance_filter
    OFFSET 0
),
keyed AS (
    SELECT
        instance_id,
        %(direction)s::int * CASE
            WHEN column_time IS NOT NULL THEN 1
            WHEN column_flag IS NOT NULL THEN 2
            WHEN column_text IS NOT NULL THEN 3
            ELSE CASE jsonb_typeof(leaf) WHEN 'number' THEN 1 WHEN 'boolean' THEN 2 WHEN 'string' THEN 3 ELSE 4 END
        END AS type_rank,
        CASE
            WHEN column_time IS NOT NULL THEN extract(epoch FROM column_time)
            WHEN column_flag IS NOT NULL THEN column_flag::int
            WHEN jsonb_typeof(leaf) = 'number' THEN leaf::numeric
            WHEN jsonb_typeof(leaf) = 'boolean' THEN (leaf = 'true'::jsonb)::int
            ELSE 0
        END AS number,
        CASE WHEN jsonb_typeof(leaf) = 'string' THEN leaf #>> '{}' ELSE coalesce(column_text, '') END COLLATE "C" AS text
    FROM valued
),

-- part: item_page
-- `page`: the chosen instances as the API shows them, in order, with their sort keys. The statement returns at least
-- one row.
page AS (
    SELECT
        item.*, c.type_rank, c.number, c.text, c.row, c.available,
        sum(octet_length(item.metrics::text)) OVER (ORDER BY c.row ROWS UNBOUNDED PRECEDING)
            - octet_length(item.metrics::text) AS bytes_before
    FROM (SELECT *, row_number() OVER () AS row, count(*) OVER () AS available FROM chosen) c
    JOIN instance_items item USING (instance_id)
)
SELECT head.cursor AS head, page.*
FROM feed_head head
LEFT JOIN page ON page.row <= %(limit)s::bigint AND page.bytes_before < %(max_bytes)s::bigint
ORDER BY page.row

-- part: evaluated_columns
-- The columns of an instance that `evaluated` computes.
        counted = p.counted,
        elapsed_windows = p.elapsed_windows,
        reporting = p.reporting,
        refresh_at = p.refresh_at,

-- part: batch_judged
-- `verdicts`: of a batch of snapshots, by position. `sent`: those that can be stored.
batch AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        jsonb_to_recordset(%(batch)s::jsonb) AS (
            instance_id uuid,
            public_key text,
            snapshot_at timestamptz,
            app_version text,
            version_rank text,
            sequence bigint,
            metrics jsonb,
            leaves jsonb,
            key_set int,
            string_set int
        )
    ) WITH ORDINALITY AS member (
        instance_id, public_key, snapshot_at, app_version, version_rank, sequence, metrics, leaves, key_set, string_set,
        position
    )
),
existing AS MATERIALIZED (
    SELECT
        instance_id, public_key, staged, app_slug, app_version AS version, version_refused,
        CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version, environment, status, counted,
        elapsed_windows, reporting, first_seen_at, last_seen_at, snapshot_at, coalesce(leaves, metrics) AS leaves, erased_at
    FROM instances
    WHERE erasing_since IS NULL AND instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.snapshot_at, b.key_set, b.string_set,
        CASE
            WHEN e.instance_id IS NULL OR e.public_key <> decode(b.public_key, 'base64') THEN 'unknown'
            WHEN e.status = 'revoked' THEN 'revoked'
            WHEN b.snapshot_at <= e.erased_at THEN 'erased'
            WHEN e.status = 'pending' THEN 'pending'
            WHEN e.staged IS NOT NULL OR e.first_seen_at IS NULL THEN 'staged'
            ELSE 'stored'
        END AS verdict,
        coalesce(alias.app_slug, e.staged ->> 'app_slug', e.app_slug) AS app_slug,
        coalesce(b.app_version, e.staged ->> 'app_version', e.version) AS version
    FROM batch b
    LEFT JOIN existing e USING (instance_id)
    LEFT JOIN application_aliases alias ON alias.slug = e.staged ->> 'app_slug'
),
sent AS MATERIALIZED (
    SELECT position, instance_id, snapshot_at, key_set, string_set, app_slug, version
    FROM verdicts
    WHERE CASE WHEN verdict IN ('stored', 'staged') THEN TRUE END
),

-- part: batch_stored
-- Stores the snapshots of `accepted`, without their `refused` leaves, and all that follows from them.
inserted AS (
    INSERT INTO snapshots (
        instance_id, snapshot_at, app_version, version_refused, sequence, metrics, app_slug, leaves, cursor
    )
    SELECT
        a.instance_id, a.snapshot_at, a.version, a.version_refused, b.sequence, b.metrics, a.app_slug,
        CASE WHEN a.refused = '{}' THEN b.leaves ELSE coalesce(b.leaves, b.metrics) - a.refused END,
        (SELECT cursor FROM feed_head) + 1
    FROM accepted a
    JOIN batch b ON b.position = a.position
    ON CONFLICT (instance_id, snapshot_at) DO NOTHING
    RETURNING instance_id, snapshot_at
),
newest AS MATERIALIZED (
    SELECT
        instance_id, max(snapshot_at) AS snapshot_at,
        (SELECT cursor FROM feed_head) + row_number() OVER (ORDER BY instance_id) AS cursor
    FROM inserted
    GROUP BY instance_id
),
before AS MATERIALIZED (
    SELECT e.* FROM existing e JOIN newest n USING (instance_id)
),
after AS MATERIALIZED (
    SELECT
        e.instance_id, e.app_slug, e.environment, e.status, e.first_seen_at, now() AS last_seen_at,
        greatest(e.snapshot_at, n.snapshot_at) AS snapshot_at,
        newer.is_newer,
        CASE WHEN current.version_refused THEN NULL ELSE current.version END AS app_version,
        current.version,
        current.version_refused,
        CASE
            WHEN NOT newer.is_newer THEN e.leaves
            WHEN a.refused = '{}' THEN coalesce(b.leaves, b.metrics)
            ELSE coalesce(b.leaves, b.metrics) - a.refused
        END AS leaves,
        a.refused,
        a.position,
        n.cursor
    FROM newest n
    JOIN before e ON e.instance_id = n.instance_id
    JOIN accepted a ON a.instance_id = n.instance_id AND CASE WHEN a.snapshot_at = n.snapshot_at THEN TRUE END
    JOIN batch b ON b.position = a.position
    CROSS JOIN LATERAL (SELECT n.snapshot_at > coalesce(e.snapshot_at, '-infinity') AS is_newer) newer
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN newer.is_newer THEN coalesce(b.app_version, e.version) ELSE e.version END AS version,
            CASE
                WHEN newer.is_newer AND coalesce(b.app_version, e.version) = a.version THEN a.version_refused
                ELSE e.version_refused
            END AS version_refused
    ) current
),
-- use: deltas
-- use: tallies_updated
-- use: absences_ended
updated AS (
    UPDATE instances i SET
        last_seen_at = p.last_seen_at,
        cursor = p.cursor,
        snapshot_at = p.snapshot_at,
        metrics = CASE WHEN p.is_newer THEN b.metrics ELSE i.metrics END,
        leaves = CASE WHEN NOT p.is_newer THEN i.leaves WHEN p.refused = '{}' THEN b.leaves ELSE p.leaves END,
-- use: evaluated_columns
        app_version = p.version,
        version_refused = p.version_refused,
        version_rank = CASE WHEN p.is_newer THEN coalesce(b.version_rank, i.version_rank) ELSE i.version_rank END
    FROM evaluated p
    JOIN batch b ON b.position = p.position
    WHERE i.instance_id = p.instance_id
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM newest)
    WHERE EXISTS (SELECT FROM newest)
)

-- part: changed_after
-- Rows of the feed after a cursor, up to `until` and the head, of one application or of all.
            cursor > %(since)s AND cursor <= (SELECT cursor FROM feed_head) AND cursor <= %(until)s
            AND (%(app)s::text IS NULL OR app_slug = %(app)s)

-- part: changed_until
-- Rows of the feed up to a cursor, from `span` cursors before it on.
    cursor > %(since)s - %(span)s::bigint AND cursor <= %(since)s AND cursor <= (SELECT cursor FROM feed_head)
