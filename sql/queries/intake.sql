-- name: store_batch (prepared)
-- Stores a batch of verified snapshots (a JSON array) and returns a verdict for each by its position:
--   stored    also if it was stored before; then `is_new` is false
--   staged    stored, and the key must be confirmed: a registration is staged, or an approval preceded the first contact
--   pending   not stored: the key must be confirmed first
--   erased    not stored: the instance was erased after the snapshot's time
--   revoked   not stored
--   unknown   not stored: no such instance, another key, or being erased
-- The statement updates the current snapshots and cursors of instances and the tallies, and notifies the feed once. A
-- snapshot without a version has its install's, and belongs to the application that the install has with it: the staged
-- registration takes effect. `key_sets` and `string_sets`
-- are the distinct sets of keys and of strings (value by key) in the batch, which most installs of an application share;
-- `key_set` and `string_set` are a snapshot's positions in them, from 0. Keys and values beyond the limits are taken out
-- of the leaves.
-- The planner has no statistics of a batch. It takes a condition within CASE to hold for half of the rows; otherwise it
-- expects two rows, and joins the rows of a batch by nested loops.
SELECT pg_advisory_xact_lock({writers_lock});
WITH batch AS MATERIALIZED (
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
        instance_id, public_key, staged, app_slug, app_version, environment, status, counted, elapsed_windows, reporting,
        first_seen_at, last_seen_at, snapshot_at, coalesce(leaves, metrics) AS leaves, erased_at
    FROM instances
    WHERE erasing_since IS NULL AND instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.*,
        CASE
            WHEN e.instance_id IS NULL OR e.public_key <> decode(b.public_key, 'base64') THEN 'unknown'
            WHEN e.status = 'revoked' THEN 'revoked'
            WHEN b.snapshot_at <= e.erased_at THEN 'erased'
            WHEN e.status = 'pending' THEN 'pending'
            WHEN e.staged IS NOT NULL OR e.first_seen_at IS NULL THEN 'staged'
            ELSE 'stored'
        END AS verdict,
        coalesce(e.staged ->> 'app_slug', e.app_slug) AS app_slug,
        coalesce(e.staged ->> 'app_version', e.app_version) AS install_version
    FROM batch b
    LEFT JOIN existing e USING (instance_id)
),
sent AS MATERIALIZED (
    SELECT DISTINCT ON (instance_id, snapshot_at) *
    FROM verdicts
    WHERE CASE WHEN verdict IN ('stored', 'staged') THEN TRUE END
    ORDER BY instance_id, snapshot_at, position
),
sent_key_sets AS MATERIALIZED (
    SELECT s.app_slug, s.key_set, s.instances, each.key
    FROM (SELECT app_slug, key_set, count(DISTINCT instance_id) AS instances FROM sent GROUP BY app_slug, key_set) s
    CROSS JOIN LATERAL jsonb_array_elements_text(%(key_sets)s::jsonb -> s.key_set) each (key)
),
sent_string_sets AS MATERIALIZED (
    SELECT s.app_slug, s.string_set, s.instances, each.key, each.value
    FROM (SELECT app_slug, string_set, count(DISTINCT instance_id) AS instances FROM sent GROUP BY app_slug, string_set) s
    CROSS JOIN LATERAL jsonb_each_text(%(string_sets)s::jsonb -> s.string_set) each (key, value)
),
sent_keys AS (
    SELECT app_slug, key, instances FROM sent_key_sets
),
sent_values AS (
    SELECT app_slug, key, value, instances FROM sent_string_sets
),
-- use: keys_admitted
refused_key_sets AS MATERIALIZED (
    SELECT s.app_slug, s.key_set, array_agg(s.key) AS keys
    FROM refused_keys r
    JOIN sent_key_sets s ON s.app_slug = r.app_slug AND s.key = r.key
    GROUP BY s.app_slug, s.key_set
),
refused_string_sets AS MATERIALIZED (
    SELECT s.app_slug, s.string_set, array_agg(s.key) AS keys
    FROM refused_values r
    JOIN sent_string_sets s ON s.app_slug = r.app_slug AND s.key = r.key AND s.value = r.value
    GROUP BY s.app_slug, s.string_set
),
accepted AS MATERIALIZED (
    SELECT
        s.position, s.instance_id, s.snapshot_at, s.app_version, s.version_rank, s.sequence, s.metrics, s.app_slug,
        s.install_version,
        CASE
            WHEN k.keys IS NULL AND v.keys IS NULL THEN s.leaves
            ELSE coalesce(s.leaves, s.metrics) - (coalesce(k.keys, '{}') || coalesce(v.keys, '{}'))
        END AS leaves
    FROM sent s
    LEFT JOIN refused_key_sets k ON k.app_slug = s.app_slug AND k.key_set = s.key_set
    LEFT JOIN refused_string_sets v ON v.app_slug = s.app_slug AND v.string_set = s.string_set
),
inserted AS (
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, sequence, metrics, app_slug, leaves, cursor)
    SELECT
        a.instance_id, a.snapshot_at, coalesce(a.app_version, a.install_version), a.sequence, a.metrics, a.app_slug,
        a.leaves, head.cursor + 1
    FROM accepted a
    CROSS JOIN feed_head head
    ON CONFLICT (instance_id, snapshot_at) DO NOTHING
    RETURNING instance_id, snapshot_at
),
newest AS MATERIALIZED (
    SELECT n.instance_id, n.snapshot_at, head.cursor + row_number() OVER (ORDER BY n.instance_id) AS cursor
    FROM (SELECT instance_id, max(snapshot_at) AS snapshot_at FROM inserted GROUP BY instance_id) n
    CROSS JOIN feed_head head
),
before AS MATERIALIZED (
    SELECT e.* FROM existing e JOIN newest n USING (instance_id)
),
after AS MATERIALIZED (
    SELECT
        b.instance_id, b.app_slug, b.environment, b.status, b.first_seen_at, now() AS last_seen_at,
        greatest(b.snapshot_at, n.snapshot_at) AS snapshot_at,
        n.snapshot_at > coalesce(b.snapshot_at, '-infinity') AS is_newer,
        CASE
            WHEN n.snapshot_at > coalesce(b.snapshot_at, '-infinity') THEN coalesce(a.app_version, b.app_version)
            ELSE b.app_version
        END AS app_version,
        CASE
            WHEN n.snapshot_at > coalesce(b.snapshot_at, '-infinity') THEN coalesce(a.leaves, a.metrics)
            ELSE b.leaves
        END AS leaves,
        a.version_rank AS sent_rank,
        a.metrics AS sent,
        a.leaves AS sent_leaves,
        n.cursor
    FROM before b
    JOIN newest n USING (instance_id)
    JOIN accepted a ON a.instance_id = n.instance_id AND CASE WHEN a.snapshot_at = n.snapshot_at THEN TRUE END
),
-- use: deltas
-- use: tallies_updated
-- use: absences_ended
updated AS (
    UPDATE instances i SET
        last_seen_at = p.last_seen_at,
        cursor = p.cursor,
        snapshot_at = p.snapshot_at,
        metrics = CASE WHEN p.is_newer THEN p.sent ELSE i.metrics END,
        leaves = CASE WHEN p.is_newer THEN p.sent_leaves ELSE i.leaves END,
-- use: evaluated_columns
        app_version = p.app_version,
        version_rank = CASE WHEN p.is_newer THEN coalesce(p.sent_rank, i.version_rank) ELSE i.version_rank END
    FROM evaluated p
    WHERE i.instance_id = p.instance_id
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM newest)
    WHERE EXISTS (SELECT FROM newest)
    RETURNING pg_notify('shm_feed', cursor::text)
)
SELECT
    v.position,
    v.verdict,
    i.instance_id IS NOT NULL AS is_new
FROM verdicts v
LEFT JOIN accepted a USING (position)
LEFT JOIN inserted i ON i.instance_id = a.instance_id AND i.snapshot_at = a.snapshot_at;
