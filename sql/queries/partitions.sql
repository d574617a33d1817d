-- name: list_missing
-- Statements that create the weekly partitions for snapshots up to `ahead` from now. A table is created first and then
-- attached, because CREATE TABLE ... PARTITION OF would block the intake. They run in one transaction. If the oldest weeks
-- have been dropped and the accepted age of snapshots (`back`) now reaches before them, one more partition covers all
-- older times (`is_older`).
WITH weeks AS MATERIALIZED (
    SELECT
        coalesce((regexp_match(bounds, 'FROM \(''([^'']+)''\)'))[1]::timestamptz, '-infinity') AS since,
        (regexp_match(bounds, 'TO \(''([^'']+)''\)'))[1]::timestamptz AS until
    FROM pg_inherits h
    JOIN pg_class c ON c.oid = h.inhrelid
    CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) bounds
    WHERE h.inhparent = 'snapshots'::regclass
),
needed AS (
    SELECT
        'snapshots_' || to_char(week AT TIME ZONE 'UTC', 'IYYY"w"IW') AS name,
        quote_literal(week) AS since, week + interval '7 days' AS until, FALSE AS is_older
    FROM generate_series((SELECT max(until) FROM weeks), now() + %(ahead)s::interval, interval '7 days') week
    UNION ALL
    SELECT 'snapshots_before_' || to_char(min(since) AT TIME ZONE 'UTC', 'IYYY"w"IW'), 'MINVALUE', min(since), TRUE
    FROM weeks
    HAVING min(since) > now() - %(back)s::interval - interval '1 day'
)
SELECT
    format('CREATE TABLE %%I (LIKE snapshots INCLUDING ALL)', name) AS creation,
    format(
        'ALTER TABLE %%I ALTER COLUMN metrics SET STATISTICS 0, ALTER COLUMN leaves SET STATISTICS 0', name
    ) AS statistics,
    format('ALTER TABLE snapshots ATTACH PARTITION %%I FOR VALUES FROM (%%s) TO (%%L)', name, since, until) AS attachment,
    is_older
FROM needed
ORDER BY until;

-- name: list_expired
-- Statements that drop the weeks whose snapshots are all past their retention. They are dropped a day late, so that
-- a clock's error does not drop a snapshot that may still arrive.
SELECT format('DROP TABLE IF EXISTS %%I', name) AS ddl, until
FROM (
    SELECT
        c.relname AS name,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz AS until
    FROM pg_inherits h
    JOIN pg_class c ON c.oid = h.inhrelid
    WHERE h.inhparent = 'snapshots'::regclass
) week
WHERE until < now() - %(retention)s::interval - interval '1 day'
ORDER BY until;
