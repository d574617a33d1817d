-- name: persist
-- Stores the settings that define the KPIs, and returns whether they changed. Instances whose evaluation changes are
-- due for a refresh; a changed active window makes the series stale.
SELECT pg_advisory_xact_lock({rollup_lock});
SELECT pg_advisory_xact_lock({writers_lock});
WITH change AS MATERIALIZED (
    SELECT
        active_window <> %(active_window)s::interval AS window_changed,
        (
            SELECT array_agg(activity_window ORDER BY activity_window)
            FROM unnest(ARRAY[interval '1 day', '7 days', '30 days', %(active_window)s::interval]) activity_window
        ) AS activity_windows
    FROM settings
    WHERE active_window <> %(active_window)s::interval OR uncounted_environments <> %(uncounted_environments)s::text[]
),
updated AS (
    UPDATE settings SET active_window = %(active_window)s, uncounted_environments = %(uncounted_environments)s, activity_windows = change.activity_windows
    FROM change
),
refreshes_due AS (
    UPDATE instances SET refresh_at = '-infinity'
    WHERE
        EXISTS (SELECT FROM change WHERE window_changed)
        OR (
            EXISTS (SELECT FROM change) AND counted <> (
                lower(environment) <> ALL(%(uncounted_environments)s::text[])
                AND coalesce(leaves, metrics) -> 'sys_ephemeral' IS DISTINCT FROM 'true'::jsonb
            )
        )
),
stale AS (
    UPDATE series_head SET stale = TRUE WHERE EXISTS (SELECT FROM change WHERE window_changed)
)
SELECT count(*) > 0 AS changed FROM change;
