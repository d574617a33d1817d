-- The statements that store snapshots.

-- part: batch_verdicts
-- `verdicts`: of a batch of snapshots, by position. `sent`: those that can be stored. Only those of an import have
-- `app_slug` and `received_at`.
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
            string_set int,
            app_slug text,
            received_at timestamptz
        )
    ) WITH ORDINALITY AS member (
        instance_id, public_key, snapshot_at, app_version, version_rank, sequence, metrics, leaves, key_set, string_set,
        app_slug, received_at, position
    )
),
existing AS MATERIALIZED (
    SELECT
        instance_id, public_key, staged, app_slug, app_version AS version, version_refused,
        CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version, environment, status, counted,
        elapsed_windows, reporting, first_seen_at, last_seen_at, snapshot_at, sequence, coalesce(leaves, metrics) AS leaves,
        erased_at
    FROM instances
    WHERE erasing_since IS NULL AND instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
verdicts AS MATERIALIZED (
    SELECT
        b.position, b.instance_id, b.snapshot_at, b.key_set, b.string_set,
        CASE
            WHEN e.instance_id IS NULL OR e.public_key <> decode(b.public_key, 'base64') THEN 'unknown'
            WHEN e.status = 'revoked' AND NOT %(is_import)s::boolean THEN 'revoked'
            WHEN b.snapshot_at <= e.erased_at THEN 'erased'
            WHEN e.status = 'pending' THEN 'pending'
            WHEN e.staged IS NOT NULL OR e.first_seen_at IS NULL THEN 'staged'
            ELSE 'stored'
        END AS verdict,
        coalesce(alias.app_slug, b.app_slug, e.staged ->> 'app_slug', e.app_slug) AS app_slug,
        coalesce(b.app_version, e.staged ->> 'app_version', e.version) AS version,
        CASE WHEN b.snapshot_at > e.snapshot_at AND b.sequence <= e.sequence THEN e.sequence END AS last_sequence
    FROM batch b
    LEFT JOIN existing e USING (instance_id)
    LEFT JOIN application_aliases alias ON alias.slug = coalesce(b.app_slug, e.staged ->> 'app_slug')
),
sent AS MATERIALIZED (
    SELECT position, instance_id, snapshot_at, key_set, string_set, app_slug, version
    FROM verdicts
    WHERE CASE WHEN verdict IN ('stored', 'staged') THEN TRUE END
),

-- part: accepted_stored
-- Stores the snapshots of `accepted`, without their `refused` leaves, and all that follows from them. Returns a verdict
-- for each snapshot of the batch.
inserted AS MATERIALIZED (
    SELECT instance_id, snapshot_at
    FROM insert_snapshots(ARRAY(
        SELECT
            (
                a.instance_id, a.snapshot_at, coalesce(b.received_at, now()), a.version, b.sequence, b.metrics, a.app_slug,
                CASE WHEN a.refused = '{}' THEN b.leaves ELSE coalesce(b.leaves, b.metrics) - a.refused END,
                (SELECT cursor FROM feed_head) + 1, a.version_refused
            )::snapshots
        FROM accepted a
        JOIN batch b ON b.position = a.position
    ))
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
        e.instance_id, e.app_slug, e.environment, e.status, e.first_seen_at,
        CASE WHEN %(is_import)s::boolean THEN coalesce(e.last_seen_at, now()) ELSE now() END AS last_seen_at,
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
        sequence = CASE WHEN p.is_newer THEN b.sequence ELSE i.sequence END,
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
SELECT
    v.position,
    CASE WHEN v.verdict IN ('stored', 'staged') AND a.position IS NULL THEN 'new_keys' ELSE v.verdict END AS verdict,
    i.instance_id IS NOT NULL AS is_new,
    CASE WHEN i.instance_id IS NOT NULL THEN v.last_sequence END AS last_sequence
FROM verdicts v
LEFT JOIN accepted a ON a.position = v.position
LEFT JOIN inserted i ON i.instance_id = a.instance_id AND i.snapshot_at = a.snapshot_at
