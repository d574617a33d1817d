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

-- name: one
-- An instance as the API shows it, with the feed's cursor.
SELECT head.cursor AS head, item.*
FROM instance_items item
CROSS JOIN feed_head head
WHERE item.instance_id = %(instance_id)s;

-- name: public_key
-- The key that signatures of an instance are checked with.
SELECT public_key FROM instances WHERE instance_id = %(instance_id)s;

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
