-- `removals` also hold departures, `moved`: an instance that went to another application and is missing in this one. Those
-- from before are in no row of their own, so whoever comes with a cursor from before lists again.
ALTER TABLE removals
    ADD COLUMN moved boolean NOT NULL DEFAULT FALSE,
    DROP COLUMN left_slug;

UPDATE feed_head SET horizon = cursor;

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
