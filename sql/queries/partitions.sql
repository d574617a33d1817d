-- name: missing
-- What makes the weeks that snapshots of the time ahead will need, as SQL to be run.
SELECT format(
    'CREATE TABLE IF NOT EXISTS %%I PARTITION OF snapshots FOR VALUES FROM (%%L) TO (%%L)',
    'snapshots_' || to_char(week AT TIME ZONE 'UTC', 'IYYY"w"IW'), week, week + interval '7 days'
) AS ddl
FROM generate_series(
    (
        SELECT max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz)
        FROM pg_inherits h
        JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent = 'snapshots'::regclass
    ),
    now() + %(ahead)s::interval,
    interval '7 days'
) week;

-- name: outlived
-- What drops the weeks all of whose snapshots are older than they are kept, as SQL to be run. A day later than it could be,
-- so that no clock's error drops what may still come in.
SELECT format('DROP TABLE %%I', c.relname) AS ddl
FROM pg_inherits h
JOIN pg_class c ON c.oid = h.inhrelid
WHERE
    h.inhparent = 'snapshots'::regclass
    AND (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz
        < now() - %(retention)s::interval - interval '1 day'
ORDER BY c.relname;
