-- Keys, values and versions that no current snapshot has any more give their places to new ones, where places are scarce: in
-- applications, and for keys, that have used three quarters of them, and in applications that do not exist any more.
-- Each keeps its place for a day at least, so that no more than the limit are added in a day, and a key of earlier days for
-- longer. The reads hold no lock; the deletions check again.

-- name: select_unused_keys
-- Keys whose places may be given to others.
SELECT k.app_slug, k.key
FROM (
    SELECT app_slug FROM aggregated_keys
    GROUP BY app_slug
    HAVING count(*) * 4 >= %(max_keys)s::bigint * 3 OR app_slug NOT IN (SELECT slug FROM applications)
) scarce
JOIN aggregated_keys k ON k.app_slug = scarce.app_slug
WHERE
    k.added_at < now() - interval '1 day' AND
-- use: key_is_unused
LIMIT %(limit)s;

-- name: delete_unused_keys
-- Deletes these keys, unless a current snapshot has them again.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM aggregated_keys k
USING jsonb_to_recordset(%(rows)s::jsonb) AS listed (app_slug text, key text)
WHERE
    k.app_slug = listed.app_slug AND k.key = listed.key AND
-- use: key_is_unused
RETURNING 1 AS deleted;

-- name: select_unused_values
-- Values whose places may be given to others, and those of deleted keys.
SELECT v.app_slug, v.key, v.value
FROM (
    SELECT app_slug, key FROM aggregated_values GROUP BY app_slug, key HAVING count(*) * 4 >= %(max_values)s::bigint * 3
    UNION
    SELECT app_slug, key FROM aggregated_values
    WHERE app_slug = ANY(ARRAY(
        SELECT app_slug FROM aggregated_values GROUP BY app_slug HAVING count(*) * 4 >= %(max_all_values)s::bigint * 3
    ))
    UNION
    SELECT app_slug, key FROM aggregated_values g
    WHERE NOT EXISTS (SELECT FROM aggregated_keys k WHERE k.app_slug = g.app_slug AND k.key = g.key)
) scarce
JOIN aggregated_values v ON v.app_slug = scarce.app_slug AND v.key = scarce.key
WHERE
    v.added_at < now() - interval '1 day' AND
-- use: value_is_unused
LIMIT %(limit)s;

-- name: delete_unused_values
-- Deletes these values, unless a current snapshot has them again.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM aggregated_values v
USING jsonb_to_recordset(%(rows)s::jsonb) AS listed (app_slug text, key text, value text)
WHERE
    v.app_slug = listed.app_slug AND v.key = listed.key AND v.value = listed.value AND
-- use: value_is_unused
RETURNING 1 AS deleted;

-- name: select_unused_versions
-- Versions whose places may be given to others.
SELECT v.app_slug, v.app_version
FROM (
    SELECT app_slug FROM aggregated_versions
    GROUP BY app_slug
    HAVING count(*) * 4 >= %(max_versions)s::bigint * 3 OR app_slug NOT IN (SELECT slug FROM applications)
) scarce
JOIN aggregated_versions v ON v.app_slug = scarce.app_slug
WHERE
    v.added_at < now() - interval '1 day' AND
-- use: version_is_unused
LIMIT %(limit)s;

-- name: delete_unused_versions
-- Deletes these versions, unless a current snapshot has them again.
SELECT pg_advisory_xact_lock({writers_lock});
DELETE FROM aggregated_versions v
USING jsonb_to_recordset(%(rows)s::jsonb) AS listed (app_slug text, app_version text)
WHERE
    v.app_slug = listed.app_slug AND v.app_version = listed.app_version AND
-- use: version_is_unused
RETURNING 1 AS deleted;
