-- name: store_batch (prepared)
-- Stores a batch of verified snapshots (a JSON array), no two of one instance and time, and returns a verdict for each by
-- its position:
--   stored    also if it was stored before; then `is_new` is false
--   staged    stored, and the key must be confirmed: a registration is staged, or an approval preceded the first contact
--   pending   not stored: the key must be confirmed first
--   erased    not stored: the instance was erased after the snapshot's time
--   revoked   not stored
--   unknown   not stored: no such instance, another key, or being erased
--   new_keys  not stored: a key, a value or the version is not aggregated, so `store_new_keys` has to store the snapshot
-- `last_sequence` is the sequence of the current snapshot before, if a newer one was stored whose sequence is not greater.
-- The statement updates the current snapshots and cursors of instances and the tallies, and notifies the feed once. A
-- snapshot without a version has its install's, and belongs to the application that the install has with it: the staged
-- registration takes effect. `key_sets` and `string_sets`
-- are the distinct sets of keys and of strings (value by key) in the batch, which most installs of an application share;
-- `key_set` and `string_set` are a snapshot's positions in them, from 0. With `is_import` a snapshot is no sign of
-- life, and may be of a revoked instance or of an application that its instance has left.
-- The planner has no statistics of a batch. It takes a condition within CASE to hold for half of the rows; otherwise it
-- expects two rows, and joins the rows of a batch by nested loops.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH
-- use: batch_verdicts
known_key_sets AS MATERIALIZED (
    SELECT s.app_slug, s.key_set
    FROM (SELECT DISTINCT app_slug, key_set FROM sent) s
    WHERE jsonb_array_length(%(key_sets)s::jsonb -> s.key_set) = (
        SELECT count(*) FROM aggregated_keys a
        WHERE
            a.app_slug = s.app_slug
            AND a.key = ANY(ARRAY(SELECT jsonb_array_elements_text(%(key_sets)s::jsonb -> s.key_set)))
    )
),
known_versions AS MATERIALIZED (
    SELECT s.app_slug, s.version
    FROM (SELECT DISTINCT app_slug, version FROM sent) s
    WHERE EXISTS (
        SELECT FROM aggregated_versions a WHERE a.app_slug = s.app_slug AND a.app_version = s.version OFFSET 0
    )
),
known_string_sets AS MATERIALIZED (
    SELECT s.app_slug, s.string_set
    FROM (SELECT DISTINCT app_slug, string_set FROM sent) s
    WHERE NOT EXISTS (
        SELECT FROM jsonb_each_text(%(string_sets)s::jsonb -> s.string_set) leaf
        WHERE NOT EXISTS (
            SELECT FROM aggregated_values a
            WHERE a.app_slug = s.app_slug AND a.key = leaf.key AND a.value = leaf.value
            OFFSET 0
        )
    )
),
accepted AS MATERIALIZED (
    SELECT
        s.position, s.instance_id, s.snapshot_at, s.app_slug, s.version, FALSE AS version_refused, '{}'::text[] AS refused
    FROM sent s
    LEFT JOIN known_key_sets k ON k.app_slug = s.app_slug AND k.key_set = s.key_set
    LEFT JOIN known_string_sets v ON v.app_slug = s.app_slug AND v.string_set = s.string_set
    LEFT JOIN known_versions w ON w.app_slug = s.app_slug AND w.version = s.version
    WHERE CASE WHEN k.key_set IS NOT NULL AND v.string_set IS NOT NULL AND w.version IS NOT NULL THEN TRUE END
),
-- use: accepted_stored

-- name: store_new_keys (prepared)
-- The same for snapshots with keys or values that are not aggregated: adds them up to the limits, and takes those beyond
-- the limits out of the leaves. It is longer, so it takes longer even for a batch without any.
SELECT pg_advisory_xact_lock({writers_lock});
SELECT pg_notify('shm_feed', '');
WITH
-- use: batch_verdicts
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
sent_versions AS MATERIALIZED (
    SELECT app_slug, version AS app_version, count(DISTINCT instance_id) AS instances FROM sent GROUP BY app_slug, version
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
        s.position, s.instance_id, s.snapshot_at, s.app_slug, s.version, r.app_version IS NOT NULL AS version_refused,
        coalesce(k.keys, '{}') || coalesce(v.keys, '{}') AS refused
    FROM sent s
    LEFT JOIN refused_key_sets k ON k.app_slug = s.app_slug AND k.key_set = s.key_set
    LEFT JOIN refused_string_sets v ON v.app_slug = s.app_slug AND v.string_set = s.string_set
    LEFT JOIN refused_versions r ON r.app_slug = s.app_slug AND r.app_version = s.version
),
-- use: accepted_stored
