-- A limit of the keys of an application that are aggregated, and of the values of each string.

-- The keys of an application that are aggregated. The first snapshot with a key adds it, until the application has
-- SHM_MAX_KEYS of them; later keys are stored with their snapshots and are not aggregated. Keys for which the vendor made
-- a setting are always added. `cursor` is the feed's cursor from which on snapshots include the key in their leaves.
CREATE TABLE aggregated_keys (
    app_slug text NOT NULL,
    key text NOT NULL,
    cursor bigint NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app_slug, key)
);

-- The same for the values of the keys with strings. Each key has up to SHM_MAX_VALUES of them.
CREATE TABLE aggregated_values (
    app_slug text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    cursor bigint NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app_slug, key, value)
);

-- When an application last sent a key or a value beyond these limits, to the minute.
CREATE TABLE key_refusals (
    app_slug text PRIMARY KEY,
    refused_at timestamptz NOT NULL
);

-- What has been aggregated until now stays so.
INSERT INTO aggregated_keys (app_slug, key, cursor)
SELECT DISTINCT app_slug, key, 0 FROM tallies WHERE metric_type IN ('number', 'boolean', 'strings')
UNION
SELECT app_slug, key, 0 FROM series_hours WHERE metric_type IN ('number', 'boolean')
UNION
SELECT app_slug, key, 0 FROM series_days WHERE metric_type IN ('number', 'boolean');

INSERT INTO aggregated_values (app_slug, key, value, cursor)
SELECT app_slug, key, value, 0 FROM tallies WHERE metric_type = 'string';

-- `app_cursor` is the feed's cursor at which the instance came to its application from another one; 0 if it never did.
-- `needs_approval`: the instance is pending because it was first seen in an hour with too many new ones.
ALTER TABLE instances
    ADD COLUMN app_cursor bigint NOT NULL DEFAULT 0,
    ADD COLUMN needs_approval boolean NOT NULL DEFAULT FALSE;

-- Instances without any signed request yet have a row of their own in the tallies: `metric_type` status, key unproven.
UPDATE tallies t SET
    instances = t.instances - unproven.instances,
    counted_instances = t.counted_instances - unproven.counted
FROM (
    SELECT app_slug, count(*) AS instances, count(*) FILTER (WHERE counted) AS counted
    FROM instances
    WHERE status = 'pending' AND first_seen_at IS NULL
    GROUP BY app_slug
) unproven
WHERE t.app_slug = unproven.app_slug AND t.metric_type = 'status' AND t.key = 'pending' AND t.value = '0';

INSERT INTO tallies (app_slug, metric_type, key, value, total, instances, counted_total, counted_instances)
SELECT app_slug, 'status', 'unproven', '0', 0, count(*), 0, count(*) FILTER (WHERE counted)
FROM instances
WHERE status = 'pending' AND first_seen_at IS NULL
GROUP BY app_slug;
