-- name: ping
-- Answers when the database does.
SELECT 1 AS one;

-- name: measure_database
-- How many bytes the database takes on its disk, and for how many seconds the oldest snapshot that is not in the charts yet
-- has been here.
SELECT
    pg_database_size(current_database()) AS bytes,
    coalesce((
        SELECT extract(epoch FROM now() - s.received_at)
        FROM snapshots s
        WHERE s.cursor > (SELECT cursor FROM series_head) AND s.cursor <= (SELECT cursor FROM feed_head)
        ORDER BY s.cursor
        LIMIT 1
    ), 0)::double precision AS series_lag_s;
