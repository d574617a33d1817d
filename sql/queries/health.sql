-- name: read_clock
-- The time of PostgreSQL's clock when it runs the statement.
SELECT clock_timestamp() AS now;

-- name: probe_write
-- Succeeds if a batch of snapshots could be written: it waits at most a second for the locks that a batch takes, on all
-- tables that it writes or reads and on this week's partition, and writes and commits one row that every batch writes. It
-- changes no value.
SET LOCAL lock_timeout = '1s';
SELECT pg_advisory_xact_lock({writers_lock});
WITH snapshot AS (
    INSERT INTO snapshots (instance_id, snapshot_at)
    SELECT '00000000-0000-0000-0000-000000000000'::uuid, now() WHERE FALSE
),
partition AS (
    UPDATE snapshots SET sequence = sequence
    WHERE instance_id = '00000000-0000-0000-0000-000000000000'::uuid AND snapshot_at = %(now)s::timestamptz
),
instance AS (
    UPDATE instances SET status = status WHERE FALSE
),
tally AS (
    INSERT INTO tallies SELECT * FROM tallies WHERE FALSE
    ON CONFLICT (app_slug, metric_type, key, value) DO UPDATE SET total = excluded.total
),
keys AS (
    INSERT INTO aggregated_keys SELECT * FROM aggregated_keys WHERE FALSE
),
string_values AS (
    INSERT INTO aggregated_values SELECT * FROM aggregated_values WHERE FALSE
),
versions AS (
    INSERT INTO aggregated_versions SELECT * FROM aggregated_versions WHERE FALSE
),
refusal AS (
    INSERT INTO key_refusals SELECT * FROM key_refusals WHERE FALSE
),
absence AS (
    INSERT INTO absences (instance_id, lost_at, returned_at)
    SELECT '00000000-0000-0000-0000-000000000000'::uuid, now(), now() WHERE FALSE
),
read_tables AS (
    SELECT count(*) AS rows
    FROM settings
    CROSS JOIN applications
    CROSS JOIN application_aliases
    WHERE FALSE
)
UPDATE feed_head SET cursor = cursor WHERE (SELECT rows FROM read_tables) = 0;

-- name: record_size
-- Stores the size of the database, unless it was stored in the last minutes, and deletes sizes that are older than `retention`.
WITH expired AS (
    DELETE FROM database_sizes WHERE measured_at < now() - %(retention)s::interval
)
INSERT INTO database_sizes (bytes)
SELECT pg_database_size(current_database())
WHERE NOT EXISTS (SELECT FROM database_sizes WHERE measured_at > now() - interval '5 minutes');

-- name: measure_growth
-- The size of the database in bytes, and its growth since the oldest stored size of each span, with the time since then in
-- seconds: since the oldest one of all first. One row with zeros if none is stored.
WITH present AS MATERIALIZED (
    SELECT pg_database_size(current_database()) AS bytes
)
SELECT
    p.bytes, p.bytes - coalesce(o.bytes, p.bytes) AS growth,
    coalesce(extract(epoch FROM now() - o.measured_at), 0)::double precision AS age_s
FROM present p
LEFT JOIN (
    SELECT DISTINCT oldest.measured_at, oldest.bytes
    FROM unnest(ARRAY[interval '7 days', interval '1 day', interval '1 hour', interval '15 minutes']) span (length)
    CROSS JOIN LATERAL (
        SELECT measured_at, bytes FROM database_sizes
        WHERE measured_at > now() - span.length AND measured_at < now()
        ORDER BY measured_at
        LIMIT 1
    ) oldest
) o ON TRUE
ORDER BY o.measured_at;

-- name: measure_database
-- The ages in seconds of the oldest snapshot that is not rolled up yet, and of the last round of the background jobs.
SELECT
    coalesce((
        SELECT extract(epoch FROM now() - s.received_at)
        FROM snapshots s
        WHERE s.cursor > (SELECT cursor FROM series_head) AND s.cursor <= (SELECT cursor FROM feed_head)
        ORDER BY s.cursor
        LIMIT 1
    ), 0)::double precision AS series_lag_s,
    greatest(0, extract(epoch FROM now() - finished_at))::double precision AS background_age_s
FROM background_rounds;

-- name: count_installs
-- Installs of all applications by status; `lost` are active ones that have been silent for longer than the active window.
-- The rows of versions are not read: strangers decide how many there are.
SELECT
    CASE
        WHEN t.key = 'active' AND t.value::int > (
            SELECT count(*) FROM unnest(s.activity_windows) w WHERE w < s.active_window
        ) THEN 'lost'
        ELSE t.key
    END AS status,
    sum(t.instances)::bigint AS instances
FROM tallies t
CROSS JOIN settings s
WHERE t.metric_type = 'status'
GROUP BY 1;

-- name: record_round
-- Stores that the background jobs have completed a round.
UPDATE background_rounds SET finished_at = now();

-- name: summarize
-- The number of instances, and the time of the newest current snapshot.
SELECT count(*) AS instances, max(snapshot_at) AS newest FROM instances;

-- name: describe_server
-- PostgreSQL's version and configuration, its connections, whether the system's collation is another one than when the
-- database was created, the age in seconds of the last round of the background jobs, and the size of the database.
SELECT
    current_setting('server_version') AS version,
    current_setting('fsync')::boolean AND current_setting('full_page_writes')::boolean AS is_durable,
    current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean AS has_autovacuum,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS max_connections,
    (SELECT sum(numbackends) FROM pg_stat_database)::int AS used_connections,
    coalesce(d.datcollversion <> pg_database_collation_actual_version(d.oid), FALSE) AS is_collation_changed,
    extract(epoch FROM now() - r.finished_at)::double precision AS background_age_s,
    pg_database_size(d.oid) AS bytes
FROM pg_database d
CROSS JOIN background_rounds r
WHERE d.datname = current_database();
