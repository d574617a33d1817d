-- name: count_events_by_day
-- By day (UTC), the numbers of instances of an application that were new, joined (are not pending), were lost,
-- returned, or were revoked while active. The statement reads every instance of the application.
WITH lifetimes AS MATERIALIZED (
    SELECT
        i.instance_id, i.first_seen_at, i.status,
        CASE
            WHEN i.last_seen_at + settings.active_window <= least(now(), i.revoked_at) THEN i.last_seen_at + settings.active_window
        END AS lost_at,
        CASE WHEN i.revoked_at < i.last_seen_at + settings.active_window THEN i.revoked_at END AS revoked_at
    FROM instances i
    CROSS JOIN settings
    WHERE i.app_slug = %(app)s AND i.first_seen_at IS NOT NULL
),
events AS (
    SELECT 'new' AS event, first_seen_at AS at FROM lifetimes
    UNION ALL
    SELECT 'joined', first_seen_at FROM lifetimes WHERE status <> 'pending'
    UNION ALL
    SELECT 'lost', lost_at FROM lifetimes WHERE lost_at IS NOT NULL AND status <> 'pending'
    UNION ALL
    SELECT 'revoked', revoked_at FROM lifetimes WHERE revoked_at IS NOT NULL
    UNION ALL
    SELECT 'lost', a.lost_at FROM absences a JOIN lifetimes USING (instance_id)
    UNION ALL
    SELECT 'returned', a.returned_at FROM absences a JOIN lifetimes USING (instance_id)
)
SELECT event, date_trunc('day', at) AS day, count(*) AS instances
FROM events
GROUP BY event, date_trunc('day', at);

-- name: count_cohorts
-- Instances of an application by the week (Monday, UTC) in which they were first seen, and by the Monday from which they
-- are no longer active (null: they are active). Further rows (`is_absence`) count temporary absences: from one Monday
-- until another. The statement reads every instance of the application.
WITH lifetimes AS MATERIALIZED (
    SELECT
        i.instance_id,
        date_trunc('week', i.first_seen_at) AS cohort,
        CASE
            WHEN i.revoked_at < i.last_seen_at + settings.active_window THEN i.revoked_at
            WHEN i.last_seen_at + settings.active_window <= now() THEN i.last_seen_at + settings.active_window
        END AS ended_at
    FROM instances i
    CROSS JOIN settings
    WHERE
        i.app_slug = %(app)s AND i.first_seen_at >= %(since)s::timestamptz AND i.status <> 'pending'
)
SELECT
    FALSE AS is_absence, cohort,
    date_trunc('week', ended_at + interval '7 days' - interval '1 microsecond') AS inactive_from,
    NULL::timestamptz AS active_again_from,
    count(*) AS instances
FROM lifetimes
GROUP BY cohort, date_trunc('week', ended_at + interval '7 days' - interval '1 microsecond')
UNION ALL
SELECT
    TRUE, l.cohort,
    date_trunc('week', a.lost_at + interval '7 days' - interval '1 microsecond'),
    date_trunc('week', a.returned_at + interval '7 days' - interval '1 microsecond'),
    count(*)
FROM lifetimes l
JOIN absences a USING (instance_id)
GROUP BY 2, 3, 4;
