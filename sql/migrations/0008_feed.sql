-- `removals` also hold departures, `moved`: an instance that went to another application and is missing in this one. What
-- was a second application in a row gets a row and a cursor of its own.
ALTER TABLE removals ADD COLUMN moved boolean NOT NULL DEFAULT FALSE;

INSERT INTO removals (cursor, instance_id, app_slug, moved)
SELECT head.cursor + row_number() OVER (ORDER BY gone.cursor), gone.instance_id, gone.left_slug, TRUE
FROM (
    SELECT cursor, instance_id, app_slug, left_slug FROM removals
    UNION ALL
    SELECT cursor, instance_id, app_slug, left_slug FROM instances
) gone
CROSS JOIN feed_head head
WHERE gone.left_slug <> gone.app_slug;

UPDATE feed_head SET cursor = greatest(cursor, (SELECT max(cursor) FROM removals));

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
