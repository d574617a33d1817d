-- Snapshots by the week, so that old ones go with their week. The statement that stores them holds them to their
-- instances, so no foreign key does it again for each row. `leaves` is null where it is `metrics` itself; `app_slug` is
-- the application that it was sent for; `cursor` the feed's when it was stored, by which they are rolled up in order.
ALTER TABLE snapshots
    DROP CONSTRAINT snapshots_instance_id_fkey,
    ADD COLUMN app_slug text,
    ADD COLUMN leaves jsonb,
    ADD COLUMN cursor bigint;

UPDATE snapshots s SET
    app_slug = i.app_slug,
    app_version = coalesce(s.app_version, i.app_version),
    leaves = nullif(flattened(s.metrics), s.metrics),
    cursor = numbers.number
FROM instances i, (
    SELECT instance_id, snapshot_at, row_number() OVER (ORDER BY received_at, instance_id, snapshot_at) AS number
    FROM snapshots
) numbers
WHERE i.instance_id = s.instance_id
    AND numbers.instance_id = s.instance_id AND numbers.snapshot_at = s.snapshot_at;

UPDATE feed_head SET cursor = greatest(cursor, (SELECT count(*) FROM snapshots));

ALTER TABLE snapshots
    ALTER COLUMN app_slug SET NOT NULL,
    ALTER COLUMN app_version SET NOT NULL,
    ALTER COLUMN cursor SET NOT NULL;

ALTER TABLE snapshots RENAME TO snapshots_first;

ALTER TABLE snapshots_first RENAME CONSTRAINT snapshots_pkey TO snapshots_first_pkey;

CREATE TABLE snapshots (
    LIKE snapshots_first INCLUDING DEFAULTS,
    PRIMARY KEY (instance_id, snapshot_at)
) PARTITION BY RANGE (snapshot_at);

-- To the end of next week; later, where snapshots of clocks far ahead were taken.
DO $$ BEGIN EXECUTE (
    SELECT format(
        'ALTER TABLE snapshots ATTACH PARTITION snapshots_first FOR VALUES FROM (MINVALUE) TO (%L)',
        date_trunc('week', greatest(max(snapshot_at), now() + interval '7 days'), 'UTC') + interval '7 days'
    )
    FROM snapshots_first
); END $$;

CREATE INDEX snapshots_by_cursor ON snapshots (cursor);

-- How far snapshots are rolled up into the series (up to which cursor), and up to which midnight days are closed.
-- `stale`: all of it is to be computed anew, because the active window has become another. `raw_since`: older snapshots
-- have been dropped. `kept_until`: days before it stay as they are, because what there was to compute them from is gone.
CREATE TABLE series_head (
    cursor bigint NOT NULL,
    closed_at timestamptz NOT NULL,
    stale boolean NOT NULL DEFAULT FALSE,
    raw_since timestamptz NOT NULL DEFAULT '-infinity',
    kept_until timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO series_head (cursor, closed_at) VALUES (0, date_trunc('day', now(), 'UTC'));

-- By how much a KPI moves at an hour's end: the sum of all rows up to an hour is what it read at its end. A snapshot
-- counts from the first hour's end after it to the last one before the install's next snapshot, at most for the active
-- window; so some rows lie in the future. By `sort`: number, boolean, version, as in `tallies`.
CREATE TABLE series_hours (
    app_slug text NOT NULL,
    sort text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    PRIMARY KEY (app_slug, sort, key, value, at)
) WITH (fillfactor = 70);

CREATE INDEX series_hours_by_time ON series_hours (at);

-- What a KPI read at a day's end, midnight UTC, up to `series_head.closed_at`: kept for good. No row: nothing known.
CREATE TABLE series_days (
    app_slug text NOT NULL,
    sort text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    total numeric NOT NULL,
    instances bigint NOT NULL,
    PRIMARY KEY (app_slug, sort, key, value, at)
);

CREATE INDEX series_days_by_time ON series_days (at);

-- Of tables of one row: PostgreSQL takes those that it knows nothing of to have a thousand, and plans for a thousand times
-- the work; and it would never look at them by itself.
ANALYZE definitions;

ANALYZE feed_head;

ANALYZE series_head;
