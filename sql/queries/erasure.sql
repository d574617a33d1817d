-- Statements that delete instances with all their data. Whatever grows with an instance's history is deleted in pages
-- that hold no lock of the writers, so the intake never waits for an erasure.

-- name: begin
-- Begins the deletion of an instance, or takes over one that has begun: from now on its requests are refused, and for a
-- minute `select_interrupted` omits it. With a public key the install itself requested it, at `signed_at`: an instance
-- that is unknown, revoked, or has another key by now is not deleted, and neither is one that was deleted and registered
-- again since. Without a key an admin requested it. The receipt of a deletion that is taken over stays, with all that it
-- has counted. No row: nothing to delete.
SELECT pg_advisory_xact_lock({writers_lock});
WITH begun AS (
    UPDATE instances SET erasing_since = now()
    WHERE
        instance_id = %(instance_id)s
        AND (
            %(public_key)s::bytea IS NULL
            OR (
                public_key = %(public_key)s AND status <> 'revoked'
                AND (erased_at IS NULL OR erased_at < %(signed_at)s::timestamptz)
            )
        )
    RETURNING instance_id, public_key, app_name
)
INSERT INTO erasure_receipts AS existing (id_hash, key_hash, app_name, signed_at)
SELECT
    sha256(settings.hash_key || uuid_send(b.instance_id)),
    sha256(settings.hash_key || uuid_send(b.instance_id) || b.public_key),
    b.app_name,
    %(signed_at)s::timestamptz
FROM begun b
CROSS JOIN settings
ON CONFLICT (id_hash) DO UPDATE SET
    key_hash = excluded.key_hash,
    app_name = excluded.app_name,
    signed_at = greatest(existing.signed_at, excluded.signed_at),
    snapshots = CASE WHEN existing.erased_at IS NULL THEN existing.snapshots ELSE 0 END,
    oldest_snapshot_at = CASE WHEN existing.erased_at IS NULL THEN existing.oldest_snapshot_at END,
    newest_snapshot_at = CASE WHEN existing.erased_at IS NULL THEN existing.newest_snapshot_at END,
    erased_at = NULL
RETURNING id_hash;

-- name: record_heartbeat
-- Records that a deletion is in progress: `select_interrupted` omits it for another minute.
SELECT pg_advisory_xact_lock({writers_lock});
UPDATE instances SET erasing_since = now() WHERE instance_id = %(instance_id)s AND erasing_since IS NOT NULL;

-- name: delete_page
-- Removes the oldest snapshots of an instance that is being erased from the series, and deletes them: as many as have
-- `max_leaves` leaves together, at least one. Only snapshots that are rolled up are in the series; `delete_instance`
-- deletes the others. The page also deletes `limit` rows of the versions that it reported and of its absences. The
-- receipt counts the snapshots. Returns the number of deleted rows.
SELECT pg_advisory_xact_lock({rollup_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id, revoked_at FROM instances WHERE instance_id = %(instance_id)s AND erasing_since IS NOT NULL
),
oldest AS MATERIALIZED (
    SELECT
        *,
        lead(snapshot_at) OVER by_time AS next_at,
        sum(leaf_count) OVER by_time - leaf_count AS leaves_before
    FROM (
        SELECT
            instance_id, snapshot_at, app_slug, coalesce(leaves, metrics) AS leaves,
            CASE WHEN version_refused THEN NULL ELSE app_version END AS app_version,
            (SELECT count(*) FROM jsonb_object_keys(coalesce(leaves, metrics))) AS leaf_count
        FROM snapshots
        WHERE
            instance_id = ANY(ARRAY(SELECT instance_id FROM target)) AND cursor <= (SELECT cursor FROM series_head)
        ORDER BY instance_id, snapshot_at
        LIMIT %(limit)s::bigint + 1
    ) page
    WINDOW by_time AS (PARTITION BY instance_id ORDER BY snapshot_at)
),
removed AS MATERIALIZED (
    SELECT * FROM oldest ORDER BY snapshot_at LIMIT least(
        %(limit)s::bigint, (SELECT count(*) FROM oldest WHERE leaves_before < %(max_leaves)s::bigint)
    )
),
runs AS MATERIALIZED (
    SELECT
        r.app_slug, r.app_version, r.leaves,
        r.snapshot_at AS starts_at,
        TRUE AS was_rolled,
        least(r.next_at, r.snapshot_at + settings.active_window, (SELECT revoked_at FROM target)) AS ended_at,
        FALSE AS is_rolled,
        NULL::timestamptz AS ends_at
    FROM removed r
    CROSS JOIN settings
),
-- use: hours
-- use: days
-- use: series_reduced
snapshots_deleted AS (
    DELETE FROM snapshots
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM removed))
        AND snapshot_at = ANY(ARRAY(SELECT snapshot_at FROM removed))
    RETURNING snapshot_at
),
absences_deleted AS (
    DELETE FROM absences
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM target))
        AND lost_at = ANY(ARRAY(
            SELECT lost_at FROM absences WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target)) LIMIT %(limit)s
        ))
    RETURNING 1
),
versions_deleted AS (
    DELETE FROM versions_seen
    WHERE
        instance_id = ANY(ARRAY(SELECT instance_id FROM target))
        AND app_version = ANY(ARRAY(
            SELECT app_version FROM versions_seen
            WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
            LIMIT %(limit)s
        ))
    RETURNING 1
),
receipt_counted AS (
    UPDATE erasure_receipts r SET
        snapshots = r.snapshots + page.snapshots,
        oldest_snapshot_at = least(r.oldest_snapshot_at, page.oldest_at),
        newest_snapshot_at = greatest(r.newest_snapshot_at, page.newest_at)
    FROM (
        SELECT count(*) AS snapshots, min(snapshot_at) AS oldest_at, max(snapshot_at) AS newest_at FROM removed
    ) page
    CROSS JOIN settings
    WHERE page.snapshots > 0 AND r.id_hash = sha256(settings.hash_key || uuid_send(%(instance_id)s::uuid))
)
SELECT
    count(*) + (SELECT count(*) FROM absences_deleted) + (SELECT count(*) FROM versions_deleted) AS rows
FROM snapshots_deleted;

-- name: delete_instance
-- Deletes an instance that is being erased, once `delete_page` has deleted all that is rolled up: with its snapshots that
-- are not, and its part of the tallies. The hashes of its ID and key stay, if it ever confirmed its key; requests that
-- were signed until the newest request for this erasure, or with the time of a stored snapshot, are refused from now on.
-- Completes the receipt and notifies the feed. No row: there is more for `delete_page`, or another process has deleted the
-- instance.
SELECT pg_advisory_xact_lock({rollup_lock});
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH target AS MATERIALIZED (
    SELECT instance_id, public_key, app_slug, first_seen_at, snapshot_at FROM instances i
    WHERE
        instance_id = %(instance_id)s AND erasing_since IS NOT NULL
        AND NOT EXISTS (
            SELECT 1 FROM snapshots s
            WHERE s.instance_id = %(instance_id)s AND s.cursor <= (SELECT cursor FROM series_head)
        )
        AND NOT EXISTS (SELECT 1 FROM versions_seen v WHERE v.instance_id = %(instance_id)s)
        AND NOT EXISTS (SELECT 1 FROM absences a WHERE a.instance_id = %(instance_id)s)
),
remaining AS MATERIALIZED (
    SELECT count(*) AS snapshots, min(snapshot_at) AS oldest_at, max(snapshot_at) AS newest_at
    FROM snapshots
    WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
-- use: after_deleted
-- use: deltas
-- use: tallies_updated
identity_kept AS (
    INSERT INTO erased_identities (id_hash, key_hash, erased_at, is_by_install)
    SELECT
        sha256(settings.hash_key || uuid_send(t.instance_id)),
        sha256(settings.hash_key || uuid_send(t.instance_id) || t.public_key),
        greatest(now(), r.signed_at, t.snapshot_at),
        r.signed_at IS NOT NULL
    FROM target t
    CROSS JOIN settings
    LEFT JOIN erasure_receipts r ON r.id_hash = sha256(settings.hash_key || uuid_send(t.instance_id))
    WHERE t.first_seen_at IS NOT NULL
    ON CONFLICT (id_hash) DO UPDATE SET
        key_hash = excluded.key_hash,
        erased_at = excluded.erased_at,
        is_by_install = excluded.is_by_install
),
receipt_completed AS (
    UPDATE erasure_receipts r SET
        snapshots = r.snapshots + remaining.snapshots,
        oldest_snapshot_at = least(r.oldest_snapshot_at, remaining.oldest_at),
        newest_snapshot_at = greatest(r.newest_snapshot_at, remaining.newest_at),
        erased_at = now()
    FROM target t
    CROSS JOIN settings
    CROSS JOIN remaining
    WHERE r.id_hash = sha256(settings.hash_key || uuid_send(t.instance_id))
),
snapshots_deleted AS (
    DELETE FROM snapshots WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
hints_deleted AS (
    DELETE FROM metric_hints WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
instance_deleted AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM target)
    RETURNING cursor
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug)
    SELECT f.cursor, t.instance_id, t.app_slug
    FROM target t, feed_advanced f
)
SELECT TRUE AS deleted FROM target;

-- name: select_receipt
-- The receipt of a completed erasure by the install with this key, for a request that took part in it (`is_begun`) or
-- came too late for that. No row: there is none, or the install has registered again since and the request did not take
-- part.
SELECT
    %(instance_id)s::text AS instance_id, r.app_name, r.erased_at, r.snapshots, r.oldest_snapshot_at,
    r.newest_snapshot_at
FROM erasure_receipts r
CROSS JOIN settings
WHERE
    r.id_hash = sha256(settings.hash_key || uuid_send(%(instance_id)s::uuid))
    AND r.key_hash = sha256(settings.hash_key || uuid_send(%(instance_id)s::uuid) || %(public_key)s::bytea)
    AND r.erased_at IS NOT NULL
    AND (%(is_begun)s::boolean OR NOT EXISTS (SELECT FROM instances WHERE instance_id = %(instance_id)s::uuid));

-- name: is_begun
-- Whether the deletion of an instance has begun and is not complete.
SELECT TRUE AS begun FROM instances WHERE instance_id = %(instance_id)s AND erasing_since IS NOT NULL;

-- name: select_interrupted
-- Deletions whose beginning or last heartbeat is more than a minute ago, and revocations that the series lack: their
-- process may have ended. Those that failed before follow the others, and wait for their next attempt.
SELECT i.instance_id, i.is_revocation
FROM (
    SELECT instance_id, FALSE AS is_revocation FROM instances WHERE erasing_since < now() - interval '1 minute'
    UNION ALL
    SELECT instance_id, TRUE FROM instances WHERE status = 'revoked' AND revoked_at IS NULL AND erasing_since IS NULL
) i
LEFT JOIN failed_removals f ON f.instance_id = i.instance_id
WHERE f.retry_at IS NULL OR f.retry_at <= now()
ORDER BY f.retry_at NULLS FIRST, i.instance_id
LIMIT %(limit)s;

-- name: record_failure
-- Records that a deletion or revocation could not be completed. Each pause before the next attempt is twice as long as the
-- one before, up to an hour.
INSERT INTO failed_removals AS existing (instance_id, attempts, error, failed_at, retry_at)
VALUES (%(instance_id)s, 1, %(error)s, now(), now() + interval '1 minute')
ON CONFLICT (instance_id) DO UPDATE SET
    attempts = existing.attempts + 1,
    error = excluded.error,
    failed_at = excluded.failed_at,
    retry_at = excluded.failed_at + least(interval '1 minute' * 2 ^ least(existing.attempts, 10), interval '1 hour');

-- name: delete_failures
-- Deletes the records of deletions and revocations that have been completed since.
DELETE FROM failed_removals f
WHERE NOT EXISTS (
    SELECT FROM instances i
    WHERE
        i.instance_id = f.instance_id
        AND (i.erasing_since IS NOT NULL OR (i.status = 'revoked' AND i.revoked_at IS NULL))
);

-- name: select_failures
-- Deletions and revocations that could not be completed, by ID after the last one of the page before.
SELECT
    f.instance_id::text AS instance_id,
    CASE WHEN i.erasing_since IS NOT NULL THEN 'delete' ELSE 'revoke' END AS action,
    f.attempts, f.error, f.failed_at, f.retry_at
FROM failed_removals f
JOIN instances i ON i.instance_id = f.instance_id
WHERE %(after)s::uuid IS NULL OR f.instance_id > %(after)s::uuid
ORDER BY f.instance_id
LIMIT %(limit)s;

-- name: delete_old_identities
-- Deletes the hashes of instances whose last snapshots are too old to be accepted again.
DELETE FROM erased_identities
WHERE id_hash = ANY(ARRAY(
    SELECT id_hash FROM erased_identities WHERE erased_at < now() - %(age)s::interval ORDER BY erased_at LIMIT %(limit)s
));

-- name: delete_old_actions
-- Deletes actions whose timestamps are too old to be accepted again.
DELETE FROM signed_actions
WHERE action_hash = ANY(ARRAY(
    SELECT action_hash FROM signed_actions WHERE signed_at < now() - %(age)s::interval ORDER BY signed_at LIMIT %(limit)s
));

-- name: delete_old_receipts
-- Deletes the receipts of erasures that were completed so long ago that no request waits for them.
DELETE FROM erasure_receipts
WHERE id_hash = ANY(ARRAY(
    SELECT id_hash FROM erasure_receipts WHERE erased_at < now() - %(age)s::interval ORDER BY erased_at LIMIT %(limit)s
));

-- name: delete_unproven
-- Deletes instances that have not signed a request in time, the oldest first, and notifies the feed. One whose deletion
-- has begun is deleted by that, with its receipt.
SELECT pg_advisory_xact_lock({writers_lock});
WITH target AS MATERIALIZED (
    SELECT instance_id, app_slug, row_number() OVER (ORDER BY registered_at, instance_id) AS row_number
    FROM instances
    WHERE
        status = 'pending' AND first_seen_at IS NULL AND registered_at < now() - %(age)s::interval
        AND erasing_since IS NULL
    ORDER BY registered_at, instance_id
    LIMIT %(limit)s
),
before AS MATERIALIZED (
    SELECT * FROM instance_states WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
-- use: after_deleted
-- use: deltas
-- use: tallies_updated
instances_deleted AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM target))
),
feed_rows AS (
    INSERT INTO removals (cursor, instance_id, app_slug)
    SELECT head.cursor + t.row_number, t.instance_id, t.app_slug
    FROM target t
    CROSS JOIN feed_head head
),
feed_advanced AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM target)
    WHERE EXISTS (SELECT FROM target)
    RETURNING pg_notify('shm_feed', cursor::text)
)
SELECT instance_id FROM target;

-- name: select_hash_key_name
-- A hash that identifies `hash_key` without revealing it. Hashes of two databases are comparable only with the same key.
SELECT encode(sha256('shm-erased'::bytea || hash_key), 'hex') AS name FROM settings;

-- name: select_erased
-- A page of the hashes of instances that were erased or are being erased, by hash after the last one of the page before.
-- An instance that registered again and is being erased again is listed once, with its later time.
SELECT DISTINCT ON (e.id_hash)
    encode(e.id_hash, 'hex') AS id_hash, encode(e.key_hash, 'hex') AS key_hash, e.erased_at, e.is_by_install
FROM (
    SELECT id_hash, key_hash, erased_at, is_by_install FROM erased_identities
    UNION ALL
    SELECT
        sha256(settings.hash_key || uuid_send(i.instance_id)),
        sha256(settings.hash_key || uuid_send(i.instance_id) || i.public_key), i.erasing_since, r.signed_at IS NOT NULL
    FROM instances i
    CROSS JOIN settings
    LEFT JOIN erasure_receipts r ON r.id_hash = sha256(settings.hash_key || uuid_send(i.instance_id))
    WHERE i.erasing_since IS NOT NULL
) e
WHERE e.id_hash > decode(%(after)s::text, 'hex')
ORDER BY e.id_hash, e.erased_at DESC
LIMIT %(limit)s;

-- name: find_erased
-- The stored instances that a list (a JSON array of hashes) has as erased. One that has registered again since is not
-- erased. Reads all instances.
SELECT i.instance_id::text
FROM instances i
CROSS JOIN settings
JOIN jsonb_to_recordset(%(batch)s::jsonb) AS b (id_hash text, erased_at timestamptz)
    ON decode(b.id_hash, 'hex') = sha256(settings.hash_key || uuid_send(i.instance_id))
WHERE coalesce(i.first_seen_at, i.registered_at) <= b.erased_at
ORDER BY i.instance_id;

-- name: store_erased
-- Stores the hashes of a list. Of an instance that was erased twice, the later time stays, with its key.
INSERT INTO erased_identities AS existing (id_hash, key_hash, erased_at, is_by_install)
SELECT DISTINCT ON (b.id_hash)
    decode(b.id_hash, 'hex'), decode(b.key_hash, 'hex'), least(b.erased_at, now()), coalesce(b.is_by_install, FALSE)
FROM jsonb_to_recordset(%(batch)s::jsonb) AS b (
    id_hash text, key_hash text, erased_at timestamptz, is_by_install boolean
)
ORDER BY b.id_hash, b.erased_at DESC
ON CONFLICT (id_hash) DO UPDATE SET
    key_hash = CASE WHEN existing.erased_at < excluded.erased_at THEN excluded.key_hash ELSE existing.key_hash END,
    erased_at = greatest(existing.erased_at, excluded.erased_at),
    is_by_install = existing.is_by_install OR excluded.is_by_install
RETURNING erased_at;
