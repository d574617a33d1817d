-- `removals` also hold departures, `moved`: an instance that went to another application and is missing in this one. Each
-- change has a cursor of its own; what was one row with two applications becomes two.
ALTER TABLE removals
    ADD COLUMN moved boolean NOT NULL DEFAULT FALSE,
    DROP CONSTRAINT removals_pkey,
    ADD PRIMARY KEY (cursor, app_slug);

INSERT INTO removals (cursor, instance_id, app_slug, moved, removed_at)
SELECT cursor, instance_id, left_slug, TRUE, removed_at FROM removals WHERE left_slug <> app_slug
UNION ALL
SELECT cursor, instance_id, left_slug, TRUE, now() FROM instances WHERE left_slug <> app_slug;

ALTER TABLE removals DROP COLUMN left_slug;

-- Applications whose KPIs read otherwise since a cursor though no instance changed: by what the vendor says of them, by
-- instances that time alone placed anew, by spreads that were computed.
CREATE TABLE stirs (
    app_slug text PRIMARY KEY,
    cursor bigint NOT NULL
);

CREATE INDEX stirs_by_cursor ON stirs (cursor);

DROP VIEW instance_items;

-- An instance as the API and the feed show it.
CREATE VIEW instance_items AS
SELECT
    instance_id, app_name, app_slug, app_version, environment, status, last_seen_at, deployment_mode, os_arch,
    first_seen_at, snapshot_at, counted, metrics, cursor
FROM instances;
