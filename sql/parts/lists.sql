-- Lists of instances, their order and their pages, and rows of the feed.

-- part: instance_filter
-- The conditions of a list of instances.
            (%(slug)s::text IS NULL OR app_slug = %(slug)s)
            AND (%(status)s::text IS NULL OR status = %(status)s)
            AND (%(version_rank)s::text IS NULL OR version_rank = %(version_rank)s)
            AND (%(environment)s::text IS NULL OR environment = %(environment)s)
            AND (
                %(pattern)s::text IS NULL OR instance_id::text ILIKE %(pattern)s OR app_version ILIKE %(pattern)s
                OR environment ILIKE %(pattern)s OR deployment_mode ILIKE %(pattern)s
            )

-- part: counted_in_headline
-- Whether the headline counts an instance, as in view `instance_items`: the column `counted` leaves activity out.
            counted AND
-- use: is_active

-- part: is_active
-- Whether an instance is active: approved, and seen within the active window.
            status = 'active' AND coalesce(last_seen_at + (SELECT active_window FROM settings) > now(), FALSE)

-- part: text_column
-- The text of an instance's column by name; null without a column, or with one of another type. The planner removes the
-- branches of other columns.
        CASE %(column)s::text
            WHEN 'instance_id' THEN instance_id::text
            WHEN 'app_name' THEN app_name
            WHEN 'app_slug' THEN app_slug
            WHEN 'app_version' THEN app_version
            WHEN 'environment' THEN environment
            WHEN 'deployment_mode' THEN deployment_mode
            WHEN 'os_arch' THEN os_arch
        END

-- part: time_column
-- The same of times; `-infinity`, as in the indexes, where an instance has none.
        CASE %(column)s::text
            WHEN 'last_seen_at' THEN coalesce(last_seen_at, '-infinity')
            WHEN 'first_seen_at' THEN coalesce(first_seen_at, '-infinity')
            WHEN 'snapshot_at' THEN coalesce(snapshot_at, '-infinity')
        END

-- part: sort_keys
-- `sort_rows`: the selected instances with their sort keys. One parallel worker halves the time if a core is idle, which
-- PostgreSQL's cost model does not expect. More workers would take cores from the intake.
SET LOCAL max_parallel_workers_per_gather = 1;
SET LOCAL parallel_tuple_cost = 0;
WITH column_values AS (
-- use: column_values
    FROM instances
    WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
),
-- use: sort_rows

-- part: sampled_sort_keys
-- The same of the instances in a hundredth of the table's pages, at most in about a thousand. Of an application with less
-- than a tenth of all instances, of none: a sample would cost as much as it saves.
WITH column_values AS (
-- use: column_values
    FROM instances TABLESAMPLE SYSTEM (
        (
            SELECT CASE
                WHEN %(slug)s::text IS NULL OR 10 * (
                    SELECT coalesce(sum(instances), 0) FROM tallies
                    WHERE app_slug = %(slug)s::text AND metric_type = 'status'
                ) >= reltuples
                THEN least(1, 100 * 1000 / greatest(relpages, 1)::real)
                ELSE 0
            END
            FROM pg_class
            WHERE oid = 'instances'::regclass
        )
    )
    WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
),
-- use: sort_rows

-- part: column_values
-- What an instance is sorted by: a column, or `leaf` if `metric` is a metric's key, which has no value in `hiding_apps`. The
-- query `fence`, which nothing reads, keeps the planner from merging these columns into `sort_rows`: so a leaf is
-- evaluated once for each row. OFFSET 0 would do the same, but one process would then sort all rows; so each process
-- keeps the first ones of its own.
    WITH fence AS (SELECT 1)
    SELECT
        instance_id,
        CASE %(column)s::text
            WHEN 'app_version' THEN version_rank || E'\x01' || nullif(app_version, '')
            WHEN 'status' THEN status
            ELSE nullif(
-- use: text_column
                , '')
        END AS column_text,
        nullif(
-- use: time_column
            , '-infinity'
        ) AS column_time,
        CASE WHEN %(column)s::text = 'counted' THEN
-- use: counted_in_headline
        END AS column_flag,
        CASE
            WHEN %(metric)s::text IS NOT NULL AND app_slug <> ALL(%(hiding_apps)s::text[])
            THEN coalesce(leaves, metrics) -> %(metric)s::text
        END AS leaf

-- part: sort_rows
-- No column of a key is null. In both directions (`direction` is 1 or -1) numbers come before booleans, booleans before
-- texts, and missing values last. Texts are compared by code points, so the order is the same on every server. Versions
-- are compared by their rank, then by their spelling; the character between the two occurs in no rank. Metrics that
-- are no number from `low_…` to `high_…` may be left out before their keys are computed; with `has_others` only numbers
-- are. jsonb compares numbers as `numeric` does.
ranked_values AS (
    WITH fence AS (SELECT 1)
    SELECT
        *,
        CASE
            WHEN %(metric)s::text IS NOT NULL
            THEN CASE jsonb_typeof(leaf) WHEN 'number' THEN 1 WHEN 'boolean' THEN 2 WHEN 'string' THEN 3 ELSE 4 END
            WHEN column_time IS NOT NULL THEN 1
            WHEN column_flag IS NOT NULL THEN 2
            WHEN column_text IS NOT NULL THEN 3
            ELSE 4
        END AS value_rank
    FROM column_values
    WHERE
        (
            (%(low_id)s::uuid IS NULL OR (leaf, instance_id) >= (%(low_number)s::jsonb, %(low_id)s::uuid))
            AND (%(high_id)s::uuid IS NULL OR (leaf, instance_id) <= (%(high_number)s::jsonb, %(high_id)s::uuid))
        )
        OR (%(has_others)s::boolean AND coalesce(jsonb_typeof(leaf) <> 'number', TRUE))
),
sort_rows AS (
    SELECT
        instance_id,
        %(direction)s::int * value_rank AS type_rank,
        CASE
            WHEN %(metric)s::text IS NULL THEN coalesce(extract(epoch FROM column_time), column_flag::int, 0)
            WHEN value_rank = 1 THEN leaf::numeric
            WHEN value_rank = 2 THEN (leaf = 'true'::jsonb)::int
            ELSE 0
        END AS number,
        CASE
            WHEN %(metric)s::text IS NULL THEN coalesce(column_text, '')
            WHEN value_rank = 3 THEN leaf #>> '{}'
            ELSE ''
        END COLLATE "C" AS text
    FROM ranked_values
),

-- part: ascending
-- The rows after a row, the least first.
    SELECT * FROM sort_rows
    WHERE
        %(after_id)s::uuid IS NULL
        OR (type_rank, number, text, instance_id)
        > (%(after_type_rank)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
    ORDER BY type_rank, number, text, instance_id

-- part: descending
-- The same, the greatest first.
    SELECT * FROM sort_rows
    WHERE
        %(after_id)s::uuid IS NULL
        OR (type_rank, number, text, instance_id)
        < (%(after_type_rank)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
    ORDER BY type_rank DESC, number DESC, text DESC, instance_id DESC

-- part: item_page
-- `page`: the chosen instances as the API shows them, in order, with their sort keys. The statement returns at least
-- one row.
page AS (
    SELECT
        item.*, c.type_rank, c.number, c.text, c.row, c.available,
        sum(octet_length(item.metrics::text)) OVER (ORDER BY c.row ROWS UNBOUNDED PRECEDING)
            - octet_length(item.metrics::text) AS bytes_before
    FROM (SELECT *, row_number() OVER () AS row, count(*) OVER () AS available FROM chosen) c
    JOIN instance_items item USING (instance_id)
)
SELECT head.cursor AS head, page.*
FROM feed_head head
LEFT JOIN page ON page.row <= %(limit)s::bigint AND page.bytes_before < %(max_bytes)s::bigint
ORDER BY page.row

-- part: distribution
-- The distribution of `sorted_values`, a sorted array of `instances` values: minimum, p50 and p90 (interpolated between the two
-- nearest values), maximum.
    sorted_values[1] AS min,
    trim_scale(sorted_values[1 + floor(0.5 * (instances - 1))::int] + (0.5 * (instances - 1) - floor(0.5 * (instances - 1)))
        * (sorted_values[1 + ceil(0.5 * (instances - 1))::int] - sorted_values[1 + floor(0.5 * (instances - 1))::int])) AS p50,
    trim_scale(sorted_values[1 + floor(0.9 * (instances - 1))::int] + (0.9 * (instances - 1) - floor(0.9 * (instances - 1)))
        * (sorted_values[1 + ceil(0.9 * (instances - 1))::int] - sorted_values[1 + floor(0.9 * (instances - 1))::int])) AS p90,
    sorted_values[instances] AS max

-- part: changed_after
-- Rows of the feed after a cursor, up to `until` and the head, of one application or of all.
            cursor > %(since)s AND cursor <= (SELECT cursor FROM feed_head) AND cursor <= %(until)s
            AND (%(app)s::text IS NULL OR app_slug = %(app)s)

-- part: changed_until
-- Rows of the feed up to a cursor, from `span` cursors before it on.
    cursor > %(since)s - %(span)s::bigint AND cursor <= %(since)s AND cursor <= (SELECT cursor FROM feed_head)
