-- A fleet with its history, with the same rows as the server would have written, a hundred times faster. Each step
-- follows a line `-- step: name`; `-- use: name` includes a part of sql/parts, and `%` is written `%%`.

-- step: prepare
SET work_mem = '256MB';
SET maintenance_work_mem = '256MB';
SELECT setseed(0.5);
INSERT INTO applications (slug, name, created_at)
SELECT slug, name, now() - interval '1 year' FROM jsonb_to_recordset(%(variants)s::jsonb) AS variant (slug text, name text)
ON CONFLICT (slug) DO NOTHING;
INSERT INTO audit (action, target) SELECT 'instance.revoke', to_char(number, 'FM00000000') FROM generate_series(1, 1000) number;
INSERT INTO bulk_changes (action, filter, instances, finished_at)
SELECT 'revoke', '{}', 10, now() FROM generate_series(1, 100);

-- step: variants
-- Installs send one of a few metrics objects (variants), so that sums over the history are sums over variants.
CREATE UNLOGGED TABLE bench_variants AS
SELECT
    row_number() OVER (ORDER BY slug) AS variant, slug, name, metrics,
    nullif(flatten_metrics(metrics), metrics) AS leaves
FROM jsonb_to_recordset(%(variants)s::jsonb) AS variant (slug text, name text, metrics jsonb);
CREATE UNLOGGED TABLE bench_leaves AS
SELECT
    variant, slug, jsonb_typeof(value) AS metric_type, key,
    CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' ELSE '' END AS value,
    CASE jsonb_typeof(value)
        WHEN 'number' THEN value::numeric
        WHEN 'boolean' THEN (value = 'true'::jsonb)::int
        ELSE 0
    END AS total
FROM bench_variants
CROSS JOIN LATERAL jsonb_each(coalesce(leaves, metrics));
ANALYZE bench_variants, bench_leaves;

-- step: installs
-- 85 of 100 report hourly, 5 daily; 6 are silent for weeks, 4 are lost. 1 of 100 is pending, 2 are revoked.
CREATE UNLOGGED TABLE bench_installs AS
WITH random_values AS MATERIALIZED (
    SELECT
        number, gen_random_uuid() AS instance_id, random() AS by_app, random() AS by_environment,
        random() AS by_silence, random() AS share, random() AS by_age, random() AS by_version, random() AS by_os,
        random() AS by_variant
    FROM generate_series(0, %(installs)s - 1) number
),
seen AS MATERIALIZED (
    SELECT
        *,
        CASE WHEN by_app < 0.6 THEN 0 WHEN by_app < 0.9 THEN 1 ELSE 2 END AS app,
        CASE number %% 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'revoked' WHEN 2 THEN 'revoked' ELSE 'active' END AS status,
        now() - CASE
            WHEN by_silence < 0.85 THEN share * interval '1 hour'
            WHEN by_silence < 0.90 THEN interval '1 hour' + share * interval '22 hours'
            WHEN by_silence < 0.96 THEN interval '2 days' + share * interval '26 days'
            ELSE interval '31 days' + share * interval '19 days'
        END AS last_seen_at
    FROM random_values
)
SELECT
    number, instance_id, status, slug AS app_slug, name AS app_name,
    app * %(variants_per_app)s + floor(by_variant * %(variants_per_app)s)::int + 1 AS variant,
    '2.' || floor(11.99 * sqrt(by_version))::int || '.0' AS app_version,
    CASE
        WHEN by_environment < 0.85 THEN 'production' WHEN by_environment < 0.91 THEN 'staging'
        WHEN by_environment < 0.96 THEN 'dev' ELSE 'ci'
    END AS environment,
    CASE WHEN by_os < 0.7 THEN 'docker' ELSE 'binary' END AS deployment_mode,
    CASE WHEN by_os < 0.8 THEN 'linux/amd64' WHEN by_os < 0.95 THEN 'linux/arm64' ELSE 'windows/amd64' END AS os_arch,
    CASE WHEN status <> 'pending' THEN last_seen_at - by_age * interval '365 days' END AS first_seen_at,
    CASE WHEN status <> 'pending' THEN last_seen_at END AS last_seen_at
FROM seen
JOIN (SELECT DISTINCT slug, name, dense_rank() OVER (ORDER BY slug) - 1 AS app FROM bench_variants) apps USING (app);
ANALYZE bench_installs;

-- step: drop_indexes
-- Building indexes at the end is faster than updating them row by row.
CREATE TABLE bench_indexes AS
SELECT indexname, replace(indexdef, ' ON ONLY ', ' ON ') AS ddl FROM pg_indexes
WHERE tablename IN ('instances', 'snapshots') AND indexname NOT IN (SELECT conname FROM pg_constraint);
DO $$ BEGIN EXECUTE (SELECT string_agg('DROP INDEX ' || indexname, ';') FROM bench_indexes); END $$;
ALTER TABLE snapshots DROP CONSTRAINT snapshots_pkey;

-- step: instances
-- Only `evaluated` of the part `deltas` is referenced, so PostgreSQL runs nothing else of it.
WITH before AS (
    SELECT * FROM instance_states WHERE FALSE
),
after AS (
    SELECT
        i.instance_id, i.app_slug, i.app_version, i.environment, i.status, i.first_seen_at, i.last_seen_at,
        i.last_seen_at AS snapshot_at, coalesce(f.leaves, f.metrics) AS leaves
    FROM bench_installs i
    JOIN bench_variants f ON f.variant = i.variant
    WHERE i.last_seen_at IS NOT NULL
    UNION ALL
    SELECT instance_id, app_slug, app_version, environment, status, NULL, NULL, NULL, '{}'
    FROM bench_installs
    WHERE last_seen_at IS NULL
),
-- use: deltas
inserted AS (
    INSERT INTO instances (
        instance_id, public_key, status, app_slug, app_name, app_version, version_rank, environment,
        deployment_mode, os_arch, registered_at, first_seen_at, last_seen_at, snapshot_at, metrics, leaves, counted,
        elapsed_windows, reporting, refresh_at, revoked_at, cursor
    )
    SELECT
        i.instance_id, sha256(uuid_send(i.instance_id)), i.status, i.app_slug, i.app_name, i.app_version,
        %(version_ranks)s::jsonb ->> i.app_version, i.environment, i.deployment_mode, i.os_arch,
        coalesce(i.first_seen_at, now()), i.first_seen_at, i.last_seen_at, p.snapshot_at,
        coalesce(f.metrics, '{}'), f.leaves, p.counted, p.elapsed_windows, p.reporting, p.refresh_at,
        CASE WHEN i.status = 'revoked' THEN i.last_seen_at END, head.cursor + 1 + i.number
    FROM evaluated p
    JOIN bench_installs i USING (instance_id)
    LEFT JOIN bench_variants f ON p.snapshot_at IS NOT NULL AND f.variant = i.variant
    CROSS JOIN feed_head head
)
UPDATE feed_head SET cursor = cursor + %(installs)s;

-- step: tallies
-- The same rows as the part `deltas` computes.
INSERT INTO tallies (app_slug, metric_type, key, value, total, instances, counted_total, counted_instances)
WITH groups AS MATERIALIZED (
    SELECT
        i.app_slug, b.variant, i.app_version, i.status, i.elapsed_windows, i.reporting,
        date_trunc('hour', i.first_seen_at) AS first_seen, count(*) AS instances,
        count(*) FILTER (WHERE i.counted) AS counted
    FROM instances i
    JOIN bench_installs b USING (instance_id)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
),
reported AS MATERIALIZED (
    SELECT l.*, g.instances, g.counted
    FROM bench_leaves l
    JOIN (
        SELECT app_slug, variant, sum(instances) AS instances, sum(counted) AS counted
        FROM groups
        WHERE reporting
        GROUP BY app_slug, variant
    ) g ON g.app_slug = l.slug AND g.variant = l.variant
)
SELECT
    app_slug, 'status', CASE status WHEN 'pending' THEN 'unproven' ELSE status END, elapsed_windows::text, 0,
    sum(instances), 0, sum(counted)
FROM groups
GROUP BY app_slug, status, elapsed_windows
UNION ALL
SELECT app_slug, 'version', '', app_version, 0, sum(instances), 0, sum(counted)
FROM groups
WHERE reporting
GROUP BY app_slug, app_version
UNION ALL
SELECT
    app_slug, 'new', to_char(first_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24'), '', 0, sum(instances), 0, sum(counted)
FROM groups
WHERE first_seen IS NOT NULL
GROUP BY app_slug, first_seen
UNION ALL
SELECT slug, metric_type, key, value, sum(total * instances), sum(instances), sum(total * counted), sum(counted)
FROM reported
GROUP BY slug, metric_type, key, value
UNION ALL
SELECT slug, 'strings', key, '', 0, sum(instances), 0, sum(counted)
FROM reported
WHERE metric_type = 'string'
GROUP BY slug, key;

-- step: intervals
-- The interval in which each snapshot is the current one: snapshots spread over 30 days, none before first_seen_at.
CREATE UNLOGGED TABLE bench_intervals AS
WITH starts AS (
    SELECT
        i.instance_id, i.app_slug, i.first_seen_at, i.last_seen_at, i.status,
        CASE WHEN age = 0 THEN i.app_version ELSE '2.' || greatest(
            0, split_part(i.app_version, '.', 2)::int - age * 3 / %(snapshots)s
        ) || '.0' END AS app_version,
        i.variant - (i.variant - 1) %% %(variants_per_app)s + (i.variant - 1 + age) %% %(variants_per_app)s AS variant,
        i.last_seen_at - (age - CASE WHEN age = 0 THEN 0 ELSE 0.9 * random() END)
            * interval '30 days' / %(snapshots)s AS starts_at
    FROM bench_installs i
    CROSS JOIN generate_series(0, %(snapshots)s - 1) age
    WHERE i.last_seen_at IS NOT NULL
)
SELECT
    instance_id, app_slug, app_version, variant, starts_at,
    least(
        lead(starts_at) OVER (PARTITION BY instance_id ORDER BY starts_at),
        starts_at + settings.active_window,
        CASE WHEN status = 'revoked' THEN last_seen_at END
    ) AS ends_at
FROM starts
CROSS JOIN settings
WHERE starts_at >= first_seen_at OR starts_at = last_seen_at;
ANALYZE bench_intervals;

-- step: snapshots
INSERT INTO snapshots (
    instance_id, snapshot_at, received_at, app_version, metrics, app_slug, leaves, cursor
)
SELECT
    r.instance_id, r.starts_at, r.starts_at + interval '1 second', r.app_version, f.metrics, r.app_slug, f.leaves,
    head.cursor + row_number() OVER (ORDER BY r.starts_at)
FROM bench_intervals r
JOIN bench_variants f ON f.variant = r.variant
CROSS JOIN feed_head head
ORDER BY r.starts_at;
UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM bench_intervals);
UPDATE series_head SET cursor = (SELECT cursor FROM feed_head);

-- step: versions
INSERT INTO versions_seen (instance_id, app_version, app_slug, first_at)
SELECT instance_id, app_version, min(app_slug), min(starts_at)
FROM bench_intervals
GROUP BY instance_id, app_version;

-- step: hours
-- The same rows as the part `series_updated` computes when nothing has been rolled up.
CREATE UNLOGGED TABLE bench_points AS
SELECT r.app_slug, r.variant, r.app_version, p.at, sum(p.weight) AS weight
FROM (
    SELECT
        *,
        date_trunc('hour', starts_at + interval '1 hour' - interval '1 microsecond') AS first,
        date_trunc('hour', ends_at + interval '1 hour' - interval '1 microsecond') AS new_end
    FROM bench_intervals
) r
CROSS JOIN LATERAL (VALUES (r.first, 1), (r.new_end, -1)) p (at, weight)
WHERE r.first < r.new_end
GROUP BY r.app_slug, r.variant, r.app_version, p.at
HAVING sum(p.weight) <> 0;
ANALYZE bench_points;
INSERT INTO series_hours (app_slug, metric_type, key, value, at, total, instances)
SELECT app_slug, metric_type, key, value, at, sum(total), sum(weight)
FROM (
    SELECT p.app_slug, l.metric_type, l.key, '' AS value, p.at, p.weight, p.weight * l.total AS total
    FROM (SELECT app_slug, variant, at, sum(weight) AS weight FROM bench_points GROUP BY app_slug, variant, at) p
    JOIN bench_leaves l ON l.variant = p.variant AND l.metric_type <> 'string'
    UNION ALL
    SELECT app_slug, 'version', '', app_version, at, weight, 0 FROM bench_points
) each
GROUP BY app_slug, metric_type, key, value, at
HAVING sum(total) <> 0 OR sum(weight) <> 0;

-- step: days
INSERT INTO series_days (app_slug, metric_type, key, value, at, total, instances)
SELECT k.app_slug, k.metric_type, k.key, k.value, d.day, k.total, k.instances
FROM (
    SELECT
        app_slug, metric_type, key, value, day,
        sum(sum(total)) OVER by_day AS total,
        sum(sum(instances)) OVER by_day AS instances,
        lead(day) OVER by_day AS next_day
    FROM (
        SELECT *, date_trunc('day', at + interval '1 day' - interval '1 microsecond') AS day FROM series_hours
    ) each
    GROUP BY app_slug, metric_type, key, value, day
    WINDOW by_day AS (PARTITION BY app_slug, metric_type, key, value ORDER BY day)
) k
CROSS JOIN series_head head
CROSS JOIN LATERAL generate_series(k.day, least(k.next_day - interval '1 day', head.closed_until), interval '1 day') d (day)
WHERE k.total <> 0 OR k.instances <> 0;

-- step: years
-- Days for which raw snapshots and hours have expired: copies of the newest day.
UPDATE series_head SET frozen_until = coalesce((SELECT min(at) FROM series_days), '-infinity');
INSERT INTO series_days (app_slug, metric_type, key, value, at, total, instances)
SELECT s.app_slug, s.metric_type, s.key, s.value, d.day, s.total, s.instances
FROM series_head head
JOIN series_days s ON s.at = head.closed_until
CROSS JOIN LATERAL generate_series(
    head.closed_until - interval '365 days', (SELECT min(at) FROM series_days) - interval '1 day', interval '1 day'
) d (day);

-- step: create_indexes
ALTER TABLE snapshots ADD CONSTRAINT snapshots_pkey PRIMARY KEY (instance_id, snapshot_at);
DO $$ BEGIN EXECUTE (SELECT string_agg(ddl, ';') FROM bench_indexes); END $$;

-- step: clean_up
DROP TABLE bench_variants, bench_leaves, bench_installs, bench_intervals, bench_points, bench_indexes;
VACUUM ANALYZE applications, instances, snapshots, tallies, series_hours, series_days, versions_seen;
CHECKPOINT;

-- step: add_day
-- A snapshot at each hour of a day for each active install, stored without a rollup.
WITH inserted AS (
    INSERT INTO snapshots (instance_id, snapshot_at, received_at, app_version, metrics, app_slug, leaves, cursor)
    SELECT
        i.instance_id, i.snapshot_at + hours_ahead * interval '1 hour', now(), i.app_version, i.metrics, i.app_slug, i.leaves,
        head.cursor + row_number() OVER (ORDER BY hours_ahead, i.instance_id)
    FROM instances i
    CROSS JOIN generate_series(1, 24) hours_ahead
    CROSS JOIN feed_head head
    WHERE i.status = 'active'
    RETURNING 1
)
UPDATE feed_head SET cursor = cursor + (SELECT count(*) FROM inserted);
