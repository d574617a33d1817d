-- name: store (prepared)
-- Stores a batch of verified snapshots (a JSON array) and tells a verdict for each by its place: stored (also when it was
-- there already, and then it is not fresh), staged (stored, and what is staged of the instance is to take effect),
-- pending (the instance must be proven first), unknown (or another key), revoked. Instances get their current snapshot
-- and a cursor, the feed is told once.
SELECT pg_advisory_xact_lock(1397247234);
WITH batch AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        jsonb_to_recordset(%(batch)s::jsonb) AS (
            instance_id uuid,
            public_key text,
            snapshot_at timestamptz,
            app_version text,
            sequence bigint,
            metrics jsonb,
            leaves jsonb
        )
    ) WITH ORDINALITY AS member (
        instance_id, public_key, snapshot_at, app_version, sequence, metrics, leaves, position
    )
),
known AS MATERIALIZED (
    SELECT instance_id, public_key, status, staged IS NOT NULL AS has_staged
    FROM instances
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM batch))
),
judged AS MATERIALIZED (
    SELECT
        b.*,
        CASE
            WHEN k.instance_id IS NULL OR k.public_key <> decode(b.public_key, 'base64') THEN 'unknown'
            WHEN k.status = 'revoked' THEN 'revoked'
            WHEN k.status = 'pending' THEN 'pending'
            WHEN k.has_staged THEN 'staged'
            ELSE 'stored'
        END AS verdict
    FROM batch b
    LEFT JOIN known k USING (instance_id)
),
accepted AS MATERIALIZED (
    SELECT DISTINCT ON (instance_id, snapshot_at) *
    FROM judged
    WHERE verdict IN ('stored', 'staged')
    ORDER BY instance_id, snapshot_at, position
),
inserted AS (
    INSERT INTO snapshots (instance_id, snapshot_at, app_version, sequence, metrics)
    SELECT instance_id, snapshot_at, app_version, sequence, metrics FROM accepted
    ON CONFLICT (instance_id, snapshot_at) DO NOTHING
    RETURNING instance_id, snapshot_at
),
newest AS MATERIALIZED (
    SELECT n.instance_id, n.snapshot_at, head.cursor + row_number() OVER (ORDER BY n.instance_id) AS cursor
    FROM (SELECT instance_id, max(snapshot_at) AS snapshot_at FROM inserted GROUP BY instance_id) n
    CROSS JOIN feed_head head
),
updated AS (
    UPDATE instances i SET
        last_seen_at = now(),
        cursor = n.cursor,
        snapshot_at = greatest(i.snapshot_at, a.snapshot_at),
        metrics = CASE WHEN a.snapshot_at > coalesce(i.snapshot_at, '-infinity') THEN a.metrics ELSE i.metrics END,
        leaves = CASE WHEN a.snapshot_at > coalesce(i.snapshot_at, '-infinity') THEN a.leaves ELSE i.leaves END,
        app_version = CASE
            WHEN a.snapshot_at > coalesce(i.snapshot_at, '-infinity') THEN coalesce(a.app_version, i.app_version)
            ELSE i.app_version
        END
    FROM newest n
    JOIN accepted a USING (instance_id, snapshot_at)
    WHERE i.instance_id = n.instance_id
),
moved AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM newest)
    WHERE EXISTS (SELECT FROM newest)
    RETURNING pg_notify('shm_feed', cursor::text)
)
SELECT
    j.position,
    j.verdict,
    i.instance_id IS NOT NULL AS fresh
FROM judged j
LEFT JOIN accepted a USING (position)
LEFT JOIN inserted i ON i.instance_id = a.instance_id AND i.snapshot_at = a.snapshot_at;
