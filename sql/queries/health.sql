-- name: ping
-- Succeeds if the database answers.
SELECT 1 AS one;

-- name: measure_database
-- The size of the database in bytes, the number of installs that wait for approval, and the age in seconds of the oldest snapshot that is not rolled up yet.
SELECT
    pg_database_size(current_database()) AS bytes,
    (
        SELECT coalesce(sum(instances), 0) FROM tallies WHERE metric_type = 'status' AND key = 'pending'
    )::bigint AS pending_installs,
    coalesce((
        SELECT extract(epoch FROM now() - s.received_at)
        FROM snapshots s
        WHERE s.cursor > (SELECT cursor FROM series_head) AND s.cursor <= (SELECT cursor FROM feed_head)
        ORDER BY s.cursor
        LIMIT 1
    ), 0)::double precision AS series_lag_s;
