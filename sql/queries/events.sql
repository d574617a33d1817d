-- Events: written by the background jobs of one server, each once, and listed newest first.

-- name: select_page
-- Events of one application, or all with those of the server, newest first. `after_at` and `after_id` are those of the last
-- one of the page before.
SELECT id::text AS id, at, kind, app_slug AS app, version, since, instances
FROM events
WHERE
    (%(slug)s::text IS NULL OR app_slug = %(slug)s)
    AND (%(after_id)s::uuid IS NULL OR (at, id) < (%(after_at)s::timestamptz, %(after_id)s::uuid))
ORDER BY at DESC, id DESC
LIMIT %(limit)s;

-- name: write_server_start
-- Adds the start of a server, unless there have been `max_starts` within a day. `id` makes a repetition harmless.
INSERT INTO events (id, at, kind, version)
SELECT %(id)s::uuid, now(), 'server_started', %(version)s
WHERE (
    SELECT count(*) FROM events WHERE kind = 'server_started' AND at > now() - interval '1 day'
) < %(max_starts)s::bigint
ON CONFLICT (id) DO NOTHING;

-- name: write_versions
-- Adds the first sight of versions, of up to `limit` versions and of all with the last one's cursor. The aggregated
-- versions are bounded (SHM_MAX_VERSIONS), but unused ones give way to others, so events of versions are bounded too: an
-- application has up to `max_of_app` on a day, and all together have up to `max_of_day`. The time of the first snapshot is
-- known once the snapshots up to that cursor are rolled up; without any snapshot the version was never seen, and
-- before `retention` it is not news. Returns whether there may be more.
WITH step AS MATERIALIZED (
    SELECT
        head.cursor AS since,
        coalesce(
            (
                SELECT next.cursor FROM aggregated_versions next
                WHERE next.cursor > head.cursor AND next.cursor <= rolled.cursor
                ORDER BY next.cursor
                OFFSET %(limit)s::bigint - 1
                LIMIT 1
            ),
            greatest(head.cursor, rolled.cursor)
        ) AS until,
        rolled.cursor AS rolled_until
    FROM event_head head
    CROSS JOIN series_head rolled
),
seen AS MATERIALIZED (
    SELECT v.app_slug, v.app_version AS version, first.at
    FROM aggregated_versions v
    CROSS JOIN LATERAL (
        SELECT min(s.first_at) AS at FROM versions_seen s WHERE s.app_slug = v.app_slug AND s.app_version = v.app_version
    ) first
    WHERE
        v.cursor > (SELECT since FROM step) AND v.cursor <= (SELECT until FROM step)
        AND first.at > now() - %(retention)s::interval
        AND NOT EXISTS (
            SELECT FROM events e
            WHERE
                e.kind = 'version_seen' AND coalesce(e.app_slug, '') = v.app_slug
                AND coalesce(e.version, '') = v.app_version AND coalesce(e.since, '-infinity') = '-infinity'
        )
),
of_application AS MATERIALIZED (
    SELECT
        s.*,
        row_number() OVER (PARTITION BY s.app_slug, date_trunc('day', s.at) ORDER BY s.at, s.version) + (
            SELECT count(*) FROM events e
            WHERE
                e.app_slug = s.app_slug AND e.kind = 'version_seen' AND e.at >= date_trunc('day', s.at)
                AND e.at < date_trunc('day', s.at) + interval '1 day'
        ) AS number
    FROM seen s
),
of_day AS MATERIALIZED (
    SELECT
        a.*,
        row_number() OVER (PARTITION BY date_trunc('day', a.at) ORDER BY a.at, a.app_slug, a.version) + (
            SELECT count(*) FROM events e
            WHERE
                e.kind = 'version_seen' AND e.at >= date_trunc('day', a.at)
                AND e.at < date_trunc('day', a.at) + interval '1 day'
        ) AS number_of_day
    FROM of_application a
    WHERE a.number <= %(max_of_app)s::bigint
),
added AS (
    INSERT INTO events (at, kind, app_slug, version)
    SELECT at, 'version_seen', app_slug, version FROM of_day WHERE number_of_day <= %(max_of_day)s::bigint
    ON CONFLICT DO NOTHING
),
advanced AS (
    UPDATE event_head SET cursor = (SELECT until FROM step) WHERE cursor < (SELECT until FROM step)
)
SELECT until < rolled_until AS has_more FROM step;

-- name: write_days
-- Adds the instances that were lost and that returned, by application, on the next days that are over, at most
-- `max_days`. The numbers are those of the lifecycle (`lifecycle.count_events_by_day`), with the same definitions.
-- Returns whether there may be more.
WITH span AS MATERIALIZED (
    SELECT
        greatest(days_until, date_trunc('day', now() - %(retention)s::interval)) AS since,
        least(
            greatest(days_until, date_trunc('day', now() - %(retention)s::interval)) + %(max_days)s * interval '1 day',
            date_trunc('day', now())
        ) AS until
    FROM event_head
),
changes AS (
    SELECT 'instances_lost' AS kind, i.app_slug, i.last_seen_at + settings.active_window AS at
    FROM instances i
    CROSS JOIN settings
    WHERE
        coalesce(i.last_seen_at, '-infinity') >= (SELECT span.since - s.active_window FROM span, settings s)
        AND coalesce(i.last_seen_at, '-infinity') < (SELECT span.until - s.active_window FROM span, settings s)
        AND i.first_seen_at IS NOT NULL AND i.status <> 'pending'
        AND (i.revoked_at IS NULL OR i.last_seen_at + settings.active_window <= i.revoked_at)
    UNION ALL
    SELECT change.kind, i.app_slug, change.at
    FROM absences a
    JOIN instances i ON i.instance_id = a.instance_id AND i.first_seen_at IS NOT NULL
    CROSS JOIN LATERAL (
        VALUES ('instances_lost', a.lost_at), ('instances_returned', a.returned_at)
    ) change (kind, at)
    WHERE change.at >= (SELECT since FROM span) AND change.at < (SELECT until FROM span)
),
added AS (
    INSERT INTO events (at, kind, app_slug, since, instances)
    SELECT date_trunc('day', at) + interval '1 day', kind, app_slug, date_trunc('day', at), count(*)
    FROM changes
    GROUP BY kind, app_slug, date_trunc('day', at)
    ON CONFLICT DO NOTHING
),
advanced AS (
    UPDATE event_head SET days_until = (SELECT until FROM span) WHERE days_until < (SELECT until FROM span)
)
SELECT until < date_trunc('day', now()) AS has_more FROM span;

-- name: write_approvals
-- Adds, for each application with instances that wait for approval, an event for a day on which a new one came to wait.
-- The number of the day's event grows with those that come later, except for the last minute of the day: the next day's
-- event has those.
WITH waiting AS (
    SELECT app_slug, sum(instances) AS instances
    FROM tallies
    WHERE metric_type = 'status' AND key = 'pending'
    GROUP BY app_slug
    HAVING sum(instances) > 0
),
followed AS (
    UPDATE events e SET instances = waiting.instances
    FROM waiting
    WHERE
        e.kind = 'approvals_due' AND coalesce(e.app_slug, '') = waiting.app_slug AND coalesce(e.version, '') = ''
        AND coalesce(e.since, '-infinity') = date_trunc('day', now()) AND e.instances < waiting.instances
)
INSERT INTO events (at, kind, app_slug, since, instances)
SELECT now(), 'approvals_due', waiting.app_slug, date_trunc('day', now()), waiting.instances
FROM waiting
CROSS JOIN LATERAL (
    SELECT coalesce(max(e.since), '-infinity') AS since, coalesce(max(e.since), '-infinity') + interval '23:59' AS until
    FROM events e
    WHERE e.app_slug = waiting.app_slug AND e.kind = 'approvals_due'
) last
WHERE
    last.since < date_trunc('day', now()) AND EXISTS (
        SELECT FROM instances i
        WHERE
            i.status = 'pending' AND coalesce(i.last_seen_at, '-infinity') > last.until
            AND i.app_slug = waiting.app_slug AND i.first_seen_at > last.until
    )
ON CONFLICT DO NOTHING;

-- name: write_floods
-- Adds an event for this and for the last hour, if it has more new instances than `max_new_installs`. Its number grows
-- with those that come later.
WITH floods AS (
    SELECT hour.since, new.instances
    FROM (VALUES (date_trunc('hour', now())), (date_trunc('hour', now()) - interval '1 hour')) hour (since)
    CROSS JOIN LATERAL (
        SELECT sum(t.instances) AS instances FROM tallies t
        WHERE t.metric_type = 'new' AND t.key = to_char(hour.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')
    ) new
    WHERE new.instances > %(max_new_installs)s::bigint
),
followed AS (
    UPDATE events e SET instances = floods.instances
    FROM floods
    WHERE
        e.kind = 'registration_flood' AND coalesce(e.app_slug, '') = '' AND coalesce(e.version, '') = ''
        AND coalesce(e.since, '-infinity') = floods.since AND e.instances < floods.instances
)
INSERT INTO events (at, kind, since, instances)
SELECT least(now(), since + interval '1 hour'), 'registration_flood', since, instances
FROM floods
ON CONFLICT DO NOTHING;

-- name: delete_old
-- Deletes events that are older than `retention`, the oldest first.
DELETE FROM events WHERE id = ANY(ARRAY(
    SELECT id FROM events WHERE at < now() - %(retention)s::interval ORDER BY at LIMIT %(limit)s
));

-- name: delete_of_application
-- Deletes events of an application that does not exist any more.
DELETE FROM events WHERE id = ANY(ARRAY(
    SELECT id FROM events
    WHERE app_slug = %(slug)s AND NOT EXISTS (SELECT FROM applications WHERE slug = %(slug)s)
    LIMIT %(limit)s
));
