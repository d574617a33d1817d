-- Repairs of the differences that the comparisons of the same title in check.sql and check_charts.sql find.
--
-- A repair computes each row that differs anew from its source. Leaves, instances, versions and absences have a short
-- source, which the repair reads under the lock of the table's writers. The source of a tally or of an hour is all
-- instances or all snapshots of an application, too long to read under a lock that every install waits for. The
-- comparison has computed the new sum without a lock; the repair adds what the old one lacks, although others have
-- written since. Each of their statements changes the sum by the same amount as its source, so the difference between
-- the two stays the same until it is added. It must be added only once: `try_lock` ensures that one session repairs at a
-- time.

-- name: try_lock
-- Whether this session is now the only one that repairs. The lock ends with the session's connection.
SELECT pg_try_advisory_lock({repair_lock}) AS is_acquired;

-- name: orphans
-- Deletes these snapshots, but none that has been stored since.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH orphans AS MATERIALIZED (
    SELECT listed.instance_id, listed.cursor
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed (instance_id uuid, cursor bigint)
    WHERE NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = listed.instance_id)
)
DELETE FROM snapshots s
USING orphans o
WHERE s.instance_id = o.instance_id AND s.cursor <= o.cursor
RETURNING 1 AS repaired;

-- name: leaves
-- Sets the leaves of these snapshots from their metrics.
SELECT pg_advisory_xact_lock({writers_lock});
WITH unequal AS MATERIALIZED (
    SELECT
        s.instance_id, s.snapshot_at, s.app_slug, s.cursor, coalesce(s.leaves, s.metrics) AS stored,
        flatten_metrics(s.metrics) AS flattened
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed (instance_id uuid, snapshot_at timestamptz)
    JOIN snapshots s ON s.instance_id = listed.instance_id AND s.snapshot_at = listed.snapshot_at
),
-- use: expected_leaves
done AS (
    SELECT FROM unequal
)
UPDATE snapshots s SET leaves = nullif(e.leaves, s.metrics)
FROM expected_leaves e
WHERE s.instance_id = e.instance_id AND s.snapshot_at = e.snapshot_at
RETURNING 1 AS repaired;

-- name: instances
-- Sets the current snapshot of these instances to their newest raw one, evaluates them again, updates the tallies, and
-- sends the instances through the feed.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH listed AS MATERIALIZED (
    SELECT DISTINCT instance_id FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed_rows (instance_id uuid)
),
-- use: raw_history
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM listed))
),
newest_snapshots AS MATERIALIZED (
    SELECT DISTINCT ON (instance_id) instance_id, snapshot_at, app_slug, metrics, leaves, sequence
    FROM snapshots
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM before))
    ORDER BY instance_id, snapshot_at DESC
),
-- use: expected_state
-- use: deltas
-- use: tallies_updated
numbered AS MATERIALIZED (
    SELECT p.*, head.cursor + row_number() OVER (ORDER BY p.instance_id) AS cursor
    FROM evaluated p
    CROSS JOIN feed_head head
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM numbered)
    WHERE EXISTS (SELECT FROM numbered)
)
UPDATE instances i SET
    snapshot_at = p.snapshot_at,
    metrics = p.metrics,
    leaves = nullif(p.leaves, p.metrics),
    sequence = CASE WHEN n.instance_id IS NULL AND p.snapshot_at IS NOT NULL THEN i.sequence ELSE n.sequence END,
-- use: evaluated_columns
    cursor = p.cursor
FROM numbered p
LEFT JOIN newest_snapshots n ON n.instance_id = p.instance_id
WHERE i.instance_id = p.instance_id
RETURNING 1 AS repaired;

-- name: ranks
-- Sets the rank of these instances, if they still have that version, and sends them through the feed.
SELECT pg_advisory_xact_lock({writers_lock});
WITH numbered AS MATERIALIZED (
    SELECT i.instance_id, n.version_rank, head.cursor + row_number() OVER (ORDER BY i.instance_id) AS cursor
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS n (instance_id uuid, app_version text, version_rank text)
    JOIN instances i ON i.instance_id = n.instance_id AND i.app_version = n.app_version
    CROSS JOIN feed_head head
    WHERE i.version_rank <> n.version_rank
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM numbered)
    WHERE EXISTS (SELECT FROM numbered)
    RETURNING pg_notify('shm_feed', cursor::text)
)
UPDATE instances i SET version_rank = n.version_rank, cursor = n.cursor
FROM numbered n
WHERE i.instance_id = n.instance_id
RETURNING 1 AS repaired;

-- name: tallies
-- Adds these differences to the tallies; the feed sends the KPIs that change.
SELECT pg_advisory_xact_lock({writers_lock});
WITH deltas AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed_rows (
        app_slug text, metric_type text, key text, value text, total numeric, instances bigint, counted_total numeric,
        counted_instances bigint
    )
),
-- use: tallies_updated
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(DISTINCT app_slug) FROM deltas)
    WHERE EXISTS (SELECT FROM deltas)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
apps_changed AS (
    INSERT INTO app_changes (app_slug, cursor)
    SELECT m.app_slug, f.cursor + 1 - row_number() OVER (ORDER BY m.app_slug)
    FROM (SELECT DISTINCT app_slug FROM deltas) m
    CROSS JOIN feed_advanced f
    ON CONFLICT (app_slug) DO UPDATE SET cursor = excluded.cursor
),
done AS (
    SELECT FROM deltas
)
SELECT 1 AS repaired FROM done;

-- name: series
-- Adds these differences to the series, unless the active window has changed since they were found.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH listed AS MATERIALIZED (
    SELECT listed_rows.*
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed_rows (
        table_name text, app_slug text, metric_type text, key text, value text, at timestamptz, total numeric,
        instances bigint, active_window interval
    )
    JOIN settings USING (active_window)
),
hours AS (
    SELECT app_slug, metric_type, key, value, at, total, instances FROM listed WHERE table_name = 'series_hours'
),
days AS (
    SELECT app_slug, metric_type, key, value, at, total, instances FROM listed WHERE table_name = 'series_days'
),
-- use: series_updated
done AS (
    SELECT FROM listed
)
SELECT 1 AS repaired FROM done;

-- name: versions
-- Sets these rows from the raw snapshots, and deletes those that no snapshot supports.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH listed AS MATERIALIZED (
    SELECT DISTINCT instance_id, app_version
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS listed_rows (instance_id uuid, app_version text)
),
reported AS MATERIALIZED (
    SELECT DISTINCT ON (n.instance_id, n.app_version)
        n.instance_id, n.app_version, s.app_slug, s.snapshot_at AS first_at
    FROM listed n
    JOIN snapshots s ON s.instance_id = n.instance_id AND s.app_version = n.app_version AND NOT s.version_refused
    WHERE s.instance_id = ANY(ARRAY(SELECT instance_id FROM listed))
    ORDER BY n.instance_id, n.app_version, s.snapshot_at
),
deleted AS (
    DELETE FROM versions_seen v
    USING listed n
    WHERE
        v.instance_id = n.instance_id AND v.app_version = n.app_version
        AND NOT EXISTS (
            SELECT FROM reported r WHERE r.instance_id = v.instance_id AND r.app_version = v.app_version
        )
    RETURNING 1
),
inserted AS (
    INSERT INTO versions_seen (instance_id, app_version, app_slug, first_at)
    SELECT instance_id, app_version, app_slug, first_at FROM reported
    ON CONFLICT (instance_id, app_version) DO UPDATE SET app_slug = excluded.app_slug, first_at = excluded.first_at
    RETURNING 1
)
SELECT 1 AS repaired FROM deleted
UNION ALL
SELECT 1 FROM inserted;

-- name: absences
-- Deletes these absences.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM absences a
USING jsonb_to_recordset(%(rows)s::jsonb) AS listed (instance_id uuid, lost_at timestamptz)
WHERE a.instance_id = listed.instance_id AND a.lost_at = listed.lost_at
RETURNING 1 AS repaired;

-- name: distributions
-- Deletes these distributions, unless they have been computed again since. The next request computes them.
DELETE FROM distributions d
USING
    jsonb_to_recordset(%(rows)s::jsonb) AS listed (app_slug text, counted_only boolean, key text, cursor bigint)
WHERE
    d.app_slug = listed.app_slug AND d.counted_only = listed.counted_only AND d.key = listed.key
    AND d.cursor = listed.cursor
RETURNING 1 AS repaired;
