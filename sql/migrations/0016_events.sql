-- Events: what happened to the applications and to the server, for a list that is the same in every console.

-- Events are kept for a year. By `kind`, with `since` as the beginning of the period that `instances` counts:
--   version_seen         a version of installs was seen for the first time in an application; `at` is its first snapshot
--   instances_lost       instances that were lost on the day `since`, which ended at `at`
--   instances_returned   instances that were seen again on that day after they had been lost
--   approvals_due        instances that waited for approval at `at`: the first new one on the day `since`
--   registration_flood   more new instances in the hour `since` than SHM_MAX_NEW_INSTALLS, of all applications together
--   server_started       a server of this `version` started
CREATE TABLE events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL,
    kind text NOT NULL CHECK (
        kind IN (
            'version_seen', 'instances_lost', 'instances_returned', 'approvals_due', 'registration_flood', 'server_started'
        )
    ),
    app_slug text,
    version text,
    since timestamptz,
    instances bigint
);

CREATE INDEX events_by_time ON events (at, id);

CREATE INDEX events_by_application ON events (app_slug, at, id) WHERE app_slug IS NOT NULL;

-- Each event is written once, by whichever server.
CREATE UNIQUE INDEX events_once ON events (
    kind, coalesce(app_slug, ''), coalesce(version, ''), coalesce(since, '-infinity')
) WHERE kind <> 'server_started';

-- How far events are written, in one row: for the versions with a `cursor` up to this one, and for the days before
-- `days_until`. The days of the last year are written from what is stored about instances.
CREATE TABLE event_head (
    cursor bigint NOT NULL,
    days_until timestamptz NOT NULL
);

INSERT INTO event_head (cursor, days_until) VALUES (-1, date_trunc('day', now() - interval '365 days', 'UTC'));

ANALYZE event_head;

-- `cursor`: the feed's cursor from which on snapshots have the version.
ALTER TABLE aggregated_versions ADD COLUMN cursor bigint NOT NULL DEFAULT 0;

CREATE INDEX aggregated_versions_by_cursor ON aggregated_versions (cursor);

-- The first snapshot with a version, without reading all installs.
DROP INDEX versions_seen_by_application;

CREATE INDEX versions_seen_by_application ON versions_seen (app_slug, app_version, first_at);

-- Instances that wait for approval, and revoked ones, among many active ones.
CREATE INDEX instances_by_status ON instances (status, coalesce(last_seen_at, '-infinity'), instance_id)
    WHERE status <> 'active';
