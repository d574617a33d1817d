-- Every statement that changes an instance takes the writers' lock first, as a statement of its own: the second one
-- then sees all that earlier writers did, and cursors are committed in their order.

-- name: register
-- What an install says of itself, unproven. A new one becomes pending; of a known one it is staged. Tells the verdict.
SELECT pg_advisory_xact_lock(1397247234);
WITH known AS MATERIALIZED (
    SELECT status, public_key FROM instances WHERE instance_id = %(instance_id)s
),
moved AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE NOT EXISTS (SELECT FROM known)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
inserted AS (
    INSERT INTO instances (
        instance_id, public_key, app_slug, app_name, app_version, environment, deployment_mode, os_arch, cursor
    )
    SELECT
        %(instance_id)s, %(public_key)s, %(app_slug)s, %(app_name)s, %(app_version)s, %(environment)s,
        %(deployment_mode)s, %(os_arch)s, cursor
    FROM moved
),
staged AS (
    UPDATE instances SET staged = jsonb_build_object(
        'app_slug', %(app_slug)s::text, 'app_name', %(app_name)s::text, 'app_version', %(app_version)s::text,
        'environment', %(environment)s::text, 'deployment_mode', %(deployment_mode)s::text,
        'os_arch', %(os_arch)s::text
    )
    WHERE instance_id = %(instance_id)s AND public_key = %(public_key)s AND status <> 'revoked'
)
SELECT CASE
    WHEN NOT EXISTS (SELECT FROM known) THEN 'new'
    WHEN EXISTS (SELECT FROM known WHERE status = 'revoked') THEN 'revoked'
    WHEN EXISTS (SELECT FROM known WHERE public_key <> %(public_key)s) THEN 'conflict'
    ELSE 'known'
END AS verdict;

-- name: claim
-- What is staged of an instance, and the application that it will belong to once that takes effect. None: unknown,
-- revoked, or another key.
SELECT
    staged,
    coalesce(staged ->> 'app_slug', app_slug) AS slug,
    coalesce(staged ->> 'app_name', app_name) AS name
FROM instances
WHERE instance_id = %(instance_id)s AND public_key = %(public_key)s AND status <> 'revoked';

-- name: prove
-- The instance's signature held: it was seen just now, what `claim` told takes effect, and it is active, unless it has to
-- be approved first. Whatever has been staged since stays for the next proof.
SELECT pg_advisory_xact_lock(1397247234);
WITH known AS MATERIALIZED (
    SELECT instance_id FROM instances
    WHERE instance_id = %(instance_id)s AND public_key = %(public_key)s AND status <> 'revoked'
),
moved AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM known)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
)
UPDATE instances i SET
    status = CASE WHEN i.status = 'pending' AND %(approval_wanted)s::boolean THEN 'pending' ELSE 'active' END,
    app_slug = coalesce(%(staged)s::jsonb ->> 'app_slug', i.app_slug),
    left_slug = CASE
        WHEN %(staged)s::jsonb ->> 'app_slug' <> i.app_slug THEN i.app_slug
        ELSE i.left_slug
    END,
    app_name = coalesce(%(staged)s::jsonb ->> 'app_name', i.app_name),
    app_version = coalesce(%(staged)s::jsonb ->> 'app_version', i.app_version),
    environment = coalesce(%(staged)s::jsonb ->> 'environment', i.environment),
    deployment_mode = coalesce(%(staged)s::jsonb ->> 'deployment_mode', i.deployment_mode),
    os_arch = coalesce(%(staged)s::jsonb ->> 'os_arch', i.os_arch),
    staged = nullif(i.staged, %(staged)s::jsonb),
    first_seen_at = coalesce(i.first_seen_at, now()),
    last_seen_at = now(),
    cursor = m.cursor
FROM known k, moved m
WHERE i.instance_id = k.instance_id
RETURNING i.status;

-- name: decide
-- An admin's decision: active or revoked. Revoked is final, so nothing but itself follows it.
SELECT pg_advisory_xact_lock(1397247234);
WITH known AS MATERIALIZED (
    SELECT instance_id FROM instances
    WHERE instance_id = %(instance_id)s AND status <> %(status)s AND status <> 'revoked'
),
moved AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM known)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
)
UPDATE instances i SET status = %(status)s, cursor = m.cursor
FROM known k, moved m
WHERE i.instance_id = k.instance_id;

-- name: rotate
-- Another key, in place of this one; the same again where it is there already. None: unknown, revoked, or by now a third.
SELECT pg_advisory_xact_lock(1397247234);
UPDATE instances SET public_key = %(new_key)s
WHERE instance_id = %(instance_id)s AND public_key IN (%(public_key)s, %(new_key)s) AND status <> 'revoked'
RETURNING status;

-- name: erase
-- Deletes an instance and all of its snapshots, tells the feed, and tells what was deleted. None: unknown, revoked, or
-- another key.
SELECT pg_advisory_xact_lock(1397247234);
WITH known AS MATERIALIZED (
    SELECT instance_id, app_slug, app_name, left_slug FROM instances
    WHERE instance_id = %(instance_id)s AND public_key = %(public_key)s AND status <> 'revoked'
),
snapshots_gone AS (
    DELETE FROM snapshots WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM known))
    RETURNING snapshot_at
),
gone AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM known))
),
moved AS (
    UPDATE feed_head SET cursor = cursor + 1
    WHERE EXISTS (SELECT FROM known)
    RETURNING cursor, pg_notify('shm_feed', cursor::text)
),
told AS (
    INSERT INTO removals (cursor, instance_id, app_slug, left_slug)
    SELECT m.cursor, k.instance_id, k.app_slug, k.left_slug
    FROM known k, moved m
)
SELECT
    k.instance_id,
    k.app_name,
    now() AS erased_at,
    count(s.snapshot_at) AS snapshots,
    min(s.snapshot_at) AS oldest_snapshot_at,
    max(s.snapshot_at) AS newest_snapshot_at
FROM known k
LEFT JOIN snapshots_gone s ON TRUE
GROUP BY k.instance_id, k.app_name;

-- name: purge
-- Removes instances that have not proven their key in time, the ones that have waited longest, and tells the feed.
SELECT pg_advisory_xact_lock(1397247234);
WITH known AS MATERIALIZED (
    SELECT instance_id, app_slug, left_slug, row_number() OVER (ORDER BY registered_at, instance_id) AS place
    FROM instances
    WHERE status = 'pending' AND first_seen_at IS NULL AND registered_at < now() - %(age)s::interval
    ORDER BY registered_at, instance_id
    LIMIT %(most)s
),
gone AS (
    DELETE FROM instances WHERE instance_id = ANY(ARRAY(SELECT instance_id FROM known))
),
told AS (
    INSERT INTO removals (cursor, instance_id, app_slug, left_slug)
    SELECT head.cursor + k.place, k.instance_id, k.app_slug, k.left_slug
    FROM known k
    CROSS JOIN feed_head head
),
moved AS (
    UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM known)
    WHERE EXISTS (SELECT FROM known)
    RETURNING pg_notify('shm_feed', cursor::text)
)
SELECT instance_id FROM known;

-- name: held
-- Everything known of an instance but its snapshots.
SELECT
    instance_id, encode(public_key, 'hex') AS public_key, status, app_name, app_slug, app_version, environment,
    deployment_mode, os_arch, registered_at, first_seen_at, last_seen_at, staged, left_slug
FROM instances
WHERE instance_id = %(instance_id)s;

-- name: snapshots_held
-- Snapshots of an instance, oldest first, after the last one of the page before.
SELECT snapshot_at, received_at, app_version, sequence, metrics
FROM snapshots
WHERE instance_id = %(instance_id)s AND snapshot_at > %(after)s::timestamptz
ORDER BY snapshot_at
LIMIT %(most)s;

-- name: one
-- An instance as the API shows it, with the feed's cursor.
SELECT head.cursor AS head, item.*
FROM instance_items item
CROSS JOIN feed_head head
WHERE item.instance_id = %(instance_id)s;

-- name: public_keys (prepared)
-- The keys that signatures of these instances are checked with.
SELECT instance_id, public_key FROM instances WHERE instance_id = ANY(%(instance_ids)s::uuid[]);

-- name: page
-- A page of instances, newest seen first, with the feed's cursor at which it is true. `after_seen` and `after_id` are
-- the last row's of the page before. Always at least one row: without an instance where nothing matches.
SELECT head.cursor AS head, page.*
FROM feed_head head
LEFT JOIN (
    SELECT * FROM instance_items
    WHERE
        (%(app)s::text IS NULL OR app_slug = %(app)s OR app_name = %(app)s)
        AND (%(status)s::text IS NULL OR status = %(status)s)
        AND (%(version)s::text IS NULL OR app_version = %(version)s)
        AND (%(environment)s::text IS NULL OR environment = %(environment)s)
        AND (
            %(pattern)s::text IS NULL OR instance_id::text ILIKE %(pattern)s OR app_version ILIKE %(pattern)s
            OR environment ILIKE %(pattern)s OR deployment_mode ILIKE %(pattern)s
        )
        AND (
            %(after_id)s::uuid IS NULL
            OR (coalesce(last_seen_at, '-infinity'), instance_id) < (%(after_seen)s::timestamptz, %(after_id)s::uuid)
        )
    ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
    LIMIT %(most)s::bigint
) page ON TRUE
ORDER BY coalesce(page.last_seen_at, '-infinity') DESC, page.instance_id DESC;
