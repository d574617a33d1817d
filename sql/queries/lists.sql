-- Pages of instances and of their snapshots. A page begins after the last row of the page before (keyset pagination),
-- so no statement counts rows of earlier pages. A page ends after `limit` rows, or earlier with the row that reaches
-- `max_bytes`. `available` is the number of rows without the bound `max_bytes`, up to `limit` + 1.
-- Backwards, an ascending list is read by the descending statement with the same `direction`, and the other way round.

-- name: select_newest
-- A page of instances, the most recently seen first, with the feed cursor at which it is current. `after_seen` and
-- `after_id` are of the last row of the page before; `offset` rows are skipped after it, for scripts that count rows. The
-- statement returns at least one row: without an instance if nothing matches.
WITH chosen AS MATERIALIZED (
    SELECT instance_id, 0 AS type_rank, 0::numeric AS number, '' AS text
    FROM instances
    WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
            AND (
                %(after_id)s::uuid IS NULL
                OR (coalesce(last_seen_at, '-infinity'), instance_id) < (%(after_seen)s::timestamptz, %(after_id)s::uuid)
            )
    ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
    LIMIT %(limit)s::bigint + 1
    OFFSET %(offset)s::bigint
),
-- use: item_page

-- name: select_newest_before
-- The same backwards: the rows before a row, the nearest first. Without one, the last rows of the list.
WITH chosen AS MATERIALIZED (
    SELECT instance_id, 0 AS type_rank, 0::numeric AS number, '' AS text
    FROM instances
    WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
            AND (
                %(after_id)s::uuid IS NULL
                OR (coalesce(last_seen_at, '-infinity'), instance_id) > (%(after_seen)s::timestamptz, %(after_id)s::uuid)
            )
    ORDER BY coalesce(last_seen_at, '-infinity'), instance_id
    LIMIT %(limit)s::bigint + 1
    OFFSET %(offset)s::bigint
),
-- use: item_page

-- name: count_newest_before
-- The number of rows before a row in this order. The statement reads the index up to the row.
SELECT count(*) AS instances
FROM instances
WHERE
-- use: instance_filter
            AND %(conditions)s::boolean
            AND (coalesce(last_seen_at, '-infinity'), instance_id) > (%(after_seen)s::timestamptz, %(after_id)s::uuid);

-- name: select_ascending
-- The same, sorted by a column or by a metric, the least first. The statement reads every matching instance: half a second
-- to a second for a million. After ten seconds it is cancelled with an error for the client. `after_…` is the sort key of
-- the last row of the page before.
-- use: sort_keys
chosen AS MATERIALIZED (
-- use: ascending
    LIMIT %(limit)s::bigint + 1
    OFFSET %(offset)s::bigint
),
-- use: item_page

-- name: select_descending
-- The same, the greatest first.
-- use: sort_keys
chosen AS MATERIALIZED (
-- use: descending
    LIMIT %(limit)s::bigint + 1
    OFFSET %(offset)s::bigint
),
-- use: item_page

-- name: select_ascending_bound
-- The last row of this page among some of the instances. The page of all instances ends at this row or before it. The
-- statement returns no row if too few match.
-- use: sampled_sort_keys
bound AS (
-- use: ascending
    LIMIT 1
    OFFSET %(limit)s::bigint + %(offset)s::bigint
)
SELECT type_rank, number, text, instance_id FROM bound;

-- name: select_descending_bound
-- The same, the greatest first.
-- use: sampled_sort_keys
bound AS (
-- use: descending
    LIMIT 1
    OFFSET %(limit)s::bigint + %(offset)s::bigint
)
SELECT type_rank, number, text, instance_id FROM bound;

-- name: select_ascending_keys
-- The IDs and sort keys of the rows after a row, the least first, without the instances.
-- use: sort_keys
keys AS (
-- use: ascending
    LIMIT %(limit)s::bigint
)
SELECT instance_id, type_rank, number, text FROM keys;

-- name: select_descending_keys
-- The same, the greatest first.
-- use: sort_keys
keys AS (
-- use: descending
    LIMIT %(limit)s::bigint
)
SELECT instance_id, type_rank, number, text FROM keys;

-- name: count_sorted_before
-- The number of rows before a row in a sorted list. The statement reads every matching instance.
-- use: sort_keys
counted AS (
    SELECT count(*) AS instances
    FROM sort_rows
    WHERE
        CASE WHEN %(direction)s::int = 1 THEN
            (type_rank, number, text, instance_id)
            < (%(after_type_rank)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
        ELSE
            (type_rank, number, text, instance_id)
            > (%(after_type_rank)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
        END
)
SELECT instances FROM counted;

-- name: select_by_id
-- Instances by ID. The ID never changes, so a scan of all instances reads each one once, despite concurrent changes.
-- `columns`: those of an instance beside its metrics. `flat`: with the leaves in place of the metrics object. OFFSET 0 keeps
-- the planner from reading all instances for a page.
WITH chosen AS MATERIALIZED (
    SELECT instance_id, CASE WHEN %(flat)s::boolean THEN leaves END AS leaves
    FROM instances
    WHERE
-- use: instance_filter
        AND %(conditions)s::boolean
        AND (%(after_id)s::uuid IS NULL OR instance_id > %(after_id)s::uuid)
    ORDER BY instance_id
    LIMIT %(limit)s::bigint
),
page AS (
    SELECT
        item.*,
        count(*) OVER () AS available,
        sum(octet_length(item.metrics::text)) OVER (ORDER BY item.instance_id ROWS UNBOUNDED PRECEDING)
            - octet_length(item.metrics::text) AS bytes_before
    FROM chosen c
    CROSS JOIN LATERAL (
        SELECT %(columns)s, coalesce(c.leaves, metrics) AS metrics
        FROM instance_items
        WHERE instance_id = c.instance_id
        OFFSET 0
    ) item
)
SELECT * FROM page
WHERE bytes_before < %(max_bytes)s::bigint
ORDER BY instance_id;

-- name: count_instances
-- The number of instances that a filter selects. The statement may read all instances. After ten seconds it is cancelled
-- with an error for the client.
SET LOCAL statement_timeout = '10s';
SELECT count(*) AS instances
FROM instances
WHERE
-- use: instance_filter
            AND %(conditions)s::boolean;

-- name: select_metric_keys
-- The metrics that most instances report, of one application or of all, by key; the number of all metrics; the feed
-- cursor. Metrics of applications that hide them are left out.
WITH hidden AS MATERIALIZED (
    SELECT a.slug AS app_slug, o.key
    FROM applications a
    CROSS JOIN LATERAL jsonb_each(a.overrides) o
    WHERE a.overrides <> '{}' AND o.value -> 'hidden' = 'true'::jsonb AND (%(slug)s::text IS NULL OR a.slug = %(slug)s)
),
reported AS (
    SELECT key, sum(instances) AS instances
    FROM tallies
    WHERE
        metric_type IN ('number', 'boolean', 'strings')
        AND (%(slug)s::text IS NULL OR app_slug = %(slug)s)
        AND (app_slug, key) NOT IN (SELECT app_slug, key FROM hidden)
    GROUP BY key
    HAVING sum(instances) > 0
)
SELECT
    head.cursor AS head,
    (SELECT count(*) FROM reported) AS total,
    ARRAY(
        SELECT key FROM (SELECT key FROM reported ORDER BY instances DESC, key LIMIT %(limit)s) frequent
        ORDER BY key COLLATE "C"
    ) AS keys
FROM feed_head head;

-- name: select_snapshots
-- A page of the snapshots of an instance, newest first. The statement returns no row if the instance does not exist. It
-- returns at least one row if the instance exists: without a snapshot if none is left.
WITH page AS MATERIALIZED (
    SELECT
        snapshot.*,
        row_number() OVER page_order AS row,
        count(*) OVER () AS available,
        sum(octet_length(snapshot.metrics::text)) OVER page_order - octet_length(snapshot.metrics::text) AS bytes_before
    FROM (
        SELECT snapshot_at, received_at, app_version, sequence, metrics
        FROM snapshots
        WHERE
            instance_id = %(instance_id)s
            AND (%(after)s::timestamptz IS NULL OR snapshot_at < %(after)s::timestamptz)
        ORDER BY snapshot_at DESC
        LIMIT %(limit)s::bigint + 1
    ) snapshot
    WINDOW page_order AS (ORDER BY snapshot.snapshot_at DESC ROWS UNBOUNDED PRECEDING)
)
SELECT page.*
FROM instances i
LEFT JOIN page ON page.row <= %(limit)s::bigint AND page.bytes_before < %(max_bytes)s::bigint
WHERE i.instance_id = %(instance_id)s
ORDER BY page.row;
