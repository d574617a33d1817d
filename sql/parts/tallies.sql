-- Parts that change tallies, and states of instances. A statement that uses `deltas` defines two CTEs before it:
-- `before`, the present instances, rows of `instance_states` (none for a new instance), and `after`, their new state: the
-- same columns without those that `evaluated` computes (none for a deleted instance).

-- part: deltas
-- `evaluated`: the rows of `after` with the columns that follow from the settings at this moment. `deltas`: the
-- change of each tally. `counted` is about the environment and `sys_ephemeral` only, as in `settings.persist`: the
-- headline counts an instance that is active too (part `counted_in_headline`).
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

-- part: evaluated_columns
-- The columns of an instance that `evaluated` computes.
        counted = p.counted,
        elapsed_windows = p.elapsed_windows,
        reporting = p.reporting,
        refresh_at = p.refresh_at,

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

-- part: after_deleted
-- `after` of instances that are deleted: no rows.
after AS (
    SELECT instance_id, app_slug, app_version, environment, status, first_seen_at, last_seen_at, snapshot_at, leaves
    FROM before
    WHERE FALSE
),

-- part: due_instances
-- `before` and `after` of the instances whose evaluation has changed by the passing of time and that no refresh has
-- processed yet, of one application or of all. Readers add the resulting deltas to the tallies, so their answers are
-- correct at their moment. Usually no instance is due.
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE refresh_at <= now() AND (%(app)s::text IS NULL OR app_slug = %(app)s)
),
-- use: after_unchanged
