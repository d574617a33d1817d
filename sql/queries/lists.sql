-- Lists of instances and of what they sent, page by page: never by counting off what was told before, always from the last
-- row of the page before on. A page ends after `limit` rows, or earlier with the row that fills `max_bytes`; `found` is how
-- many there would have been, up to one more than `limit`.

-- name: select_newest
-- A page of instances, newest seen first, with the feed's cursor at which it is true. `after_seen` and `after_id` are
-- the last row's of the page before. Always at least one row: without an instance where nothing matches.
SELECT head.cursor AS head, page.*
FROM feed_head head
LEFT JOIN (
    SELECT
        item.*,
        row_number() OVER page_order AS row,
        count(*) OVER () AS found,
        sum(octet_length(item.metrics::text)) OVER page_order - octet_length(item.metrics::text) AS bytes_before
    FROM (
        SELECT * FROM instance_items
        WHERE
-- use: instance_filter
            AND (
                %(after_id)s::uuid IS NULL
                OR (coalesce(last_seen_at, '-infinity'), instance_id) < (%(after_seen)s::timestamptz, %(after_id)s::uuid)
            )
        ORDER BY coalesce(last_seen_at, '-infinity') DESC, instance_id DESC
        LIMIT %(limit)s::bigint + 1
    ) item
    WINDOW page_order AS (
        ORDER BY coalesce(item.last_seen_at, '-infinity') DESC, item.instance_id DESC ROWS UNBOUNDED PRECEDING
    )
) page ON page.row <= %(limit)s::bigint AND page.bytes_before < %(max_bytes)s::bigint
ORDER BY page.row;

-- name: select_ascending
-- The same, sorted by a column or by a metric, the least first. It looks at every instance that matches: about a second
-- for a million, and past ten somebody is told so. `after_…` is the sort key of the last row of the page before.
-- use: sort_keys
chosen AS MATERIALIZED (
    SELECT * FROM keyed
    WHERE
        %(after_id)s::uuid IS NULL
        OR (place, number, text, instance_id)
        > (%(after_place)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
    ORDER BY place, number, text, instance_id
    LIMIT %(limit)s::bigint + 1
),
-- use: item_page

-- name: select_descending
-- The same, the most first.
-- use: sort_keys
chosen AS MATERIALIZED (
    SELECT * FROM keyed
    WHERE
        %(after_id)s::uuid IS NULL
        OR (place, number, text, instance_id)
        < (%(after_place)s::int, %(after_number)s::numeric, %(after_text)s::text, %(after_id)s::uuid)
    ORDER BY place DESC, number DESC, text DESC, instance_id DESC
    LIMIT %(limit)s::bigint + 1
),
-- use: item_page

-- name: select_by_id
-- Instances by their ID, which never changes: whoever walks over all of them meets each one once, whatever happens
-- meanwhile. `flat`: with their leaves in place of what they sent.
SELECT *
FROM (
    SELECT
        item.*,
        count(*) OVER () AS found,
        sum(octet_length(item.metrics::text)) OVER (ORDER BY item.instance_id ROWS UNBOUNDED PRECEDING)
            - octet_length(item.metrics::text) AS bytes_before
    FROM (
        SELECT
            instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
            first_seen_at, snapshot_at, counted, version_rank, cursor,
            CASE WHEN %(flat)s::boolean THEN coalesce(leaves, metrics) ELSE metrics END AS metrics
        FROM instances
        WHERE
-- use: instance_filter
            AND (%(after_id)s::uuid IS NULL OR instance_id > %(after_id)s::uuid)
        ORDER BY instance_id
        LIMIT %(limit)s::bigint
    ) item
) page
WHERE bytes_before < %(max_bytes)s::bigint
ORDER BY instance_id;

-- name: select_metric_keys
-- The metrics that most instances answer, of one application or of all, by key; how many there are; the feed's cursor.
WITH known AS (
    SELECT key, sum(instances) AS instances
    FROM tallies
    WHERE
        metric_type IN ('number', 'boolean', 'strings')
        AND (%(slug)s::text IS NULL OR app_slug = %(slug)s)
    GROUP BY key
    HAVING sum(instances) > 0
)
SELECT
    head.cursor AS head,
    (SELECT count(*) FROM known) AS found,
    ARRAY(
        SELECT key FROM (SELECT key FROM known ORDER BY instances DESC, key LIMIT %(limit)s) frequent
        ORDER BY key COLLATE "C"
    ) AS keys
FROM feed_head head;

-- name: select_snapshots
-- A page of an instance's snapshots, newest first. None: there is no such instance. At least one row where there is one:
-- without a snapshot where there is none any more.
SELECT page.*
FROM instances i
LEFT JOIN (
    SELECT
        sent.*,
        row_number() OVER page_order AS row,
        count(*) OVER () AS found,
        sum(octet_length(sent.metrics::text)) OVER page_order - octet_length(sent.metrics::text) AS bytes_before
    FROM (
        SELECT snapshot_at, received_at, app_version, metrics
        FROM snapshots
        WHERE
            instance_id = %(instance_id)s
            AND (%(after)s::timestamptz IS NULL OR snapshot_at < %(after)s::timestamptz)
        ORDER BY snapshot_at DESC
        LIMIT %(limit)s::bigint + 1
    ) sent
    WINDOW page_order AS (ORDER BY sent.snapshot_at DESC ROWS UNBOUNDED PRECEDING)
) page ON page.row <= %(limit)s::bigint AND page.bytes_before < %(max_bytes)s::bigint
WHERE i.instance_id = %(instance_id)s
ORDER BY page.row;
