-- Conditions on an instance, from which `shm.db.conditions` composes the parameter `conditions` of lists. All values are
-- constants for the planner, which removes the branches of other operators and columns: what remains can use an index.
-- Texts are compared without regard to the case of ASCII letters, which is the same on every server.

-- part: condition_instance
instance_id = %(value)s::uuid

-- part: condition_instances
instance_id = ANY(%(ids)s::uuid[])

-- part: condition_first_rows
-- These instances, and all that have changed after a cursor of the feed.
instance_id = ANY(%(ids)s::uuid[]) OR cursor > %(cursor)s::bigint

-- part: condition_text
CASE %(operator)s::text
    WHEN '=' THEN lower((
-- use: text_column
    ) COLLATE "C") = lower(%(value)s::text COLLATE "C")
    WHEN '!=' THEN lower((
-- use: text_column
    ) COLLATE "C") <> lower(%(value)s::text COLLATE "C")
    WHEN ':' THEN position(lower(%(value)s::text COLLATE "C") IN lower((
-- use: text_column
    ) COLLATE "C")) > 0
END

-- part: condition_version
-- Versions are compared by their rank. `pattern` matches a version by its beginning.
app_version <> '' AND CASE %(operator)s::text
    WHEN '=' THEN version_rank = %(rank)s::text
    WHEN '!=' THEN version_rank <> %(rank)s::text
    WHEN '>' THEN version_rank > %(rank)s::text
    WHEN '>=' THEN version_rank >= %(rank)s::text
    WHEN '<' THEN version_rank < %(rank)s::text
    WHEN '<=' THEN version_rank <= %(rank)s::text
    WHEN ':' THEN app_version COLLATE "C" ~* %(pattern)s::text
END

-- part: condition_status
status = %(value)s::text

-- part: condition_counted
(
-- use: counted_in_headline
)

-- part: condition_state
-- The states of the console: what of the active window and of the headline's count applies to an instance.
CASE %(value)s::text
    WHEN 'pending' THEN status = 'pending'
    WHEN 'revoked' THEN status = 'revoked'
    WHEN 'counted' THEN
-- use: counted_in_headline
    WHEN 'uncounted' THEN NOT counted AND
-- use: is_active
    WHEN 'active' THEN
-- use: is_active
    WHEN 'silent' THEN status = 'active' AND NOT (
-- use: is_active
    )
END

-- part: condition_time
-- A time before or after `time`, or before or after the age `age`. An instance without the time matches neither.
(
-- use: time_column
) > '-infinity' AND CASE %(operator)s::text
    WHEN '>' THEN
-- use: time_column
        > CASE WHEN %(age)s::interval IS NULL THEN %(time)s::timestamptz ELSE now() - %(age)s::interval END
    WHEN '>=' THEN
-- use: time_column
        >= CASE WHEN %(age)s::interval IS NULL THEN %(time)s::timestamptz ELSE now() - %(age)s::interval END
    WHEN '<' THEN
-- use: time_column
        < CASE WHEN %(age)s::interval IS NULL THEN %(time)s::timestamptz ELSE now() - %(age)s::interval END
    WHEN '<=' THEN
-- use: time_column
        <= CASE WHEN %(age)s::interval IS NULL THEN %(time)s::timestamptz ELSE now() - %(age)s::interval END
END

-- part: condition_metric
-- A metric of the current snapshot, aggregated or not; `path` is the key of a nested one, in the strict mode, which
-- finds no element of an array. It has no value in `hiding_apps`. `number` and `boolean` are the value as such, if it
-- is one. OFFSET 0 looks the metric up once.
app_slug <> ALL(%(hiding_apps)s::text[]) AND (
    SELECT CASE %(operator)s::text
        WHEN ':' THEN position(lower(%(value)s::text COLLATE "C") IN lower(m.text COLLATE "C")) > 0
        WHEN '=' THEN m.is_equal
        WHEN '!=' THEN NOT coalesce(m.is_equal, FALSE)
        WHEN '>' THEN m.number > %(number)s::numeric
        WHEN '>=' THEN m.number >= %(number)s::numeric
        WHEN '<' THEN m.number < %(number)s::numeric
        WHEN '<=' THEN m.number <= %(number)s::numeric
    END
    FROM (
        SELECT
            leaf.*,
            CASE
                WHEN leaf.type = 'number' THEN leaf.number = %(number)s::numeric
                WHEN leaf.type = 'boolean' THEN leaf.value = to_jsonb(%(boolean)s::boolean)
                WHEN leaf.type = 'string' THEN lower(leaf.text COLLATE "C") = lower(%(value)s::text COLLATE "C")
            END AS is_equal
        FROM (
            SELECT
                found.value, jsonb_typeof(found.value) AS type,
                CASE jsonb_typeof(found.value) WHEN 'number' THEN found.value::numeric END AS number,
                CASE
                    WHEN jsonb_typeof(found.value) = 'string' THEN found.value #>> '{}'
                    WHEN found.value = 'true'::jsonb THEN 'yes'
                    WHEN found.value = 'false'::jsonb THEN 'no'
                END AS text
            FROM (
                SELECT coalesce(
                    coalesce(leaves, metrics) -> %(key)s::text, metrics -> %(key)s::text,
                    jsonb_path_query_first(metrics, %(path)s::jsonpath, silent => TRUE)
                ) AS value
                OFFSET 0
            ) found
        ) leaf
        WHERE leaf.type IN ('number', 'boolean', 'string', 'array')
    ) m
)
