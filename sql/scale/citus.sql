-- Distributes SHM's snapshots over the workers of a Citus cluster, for a history that does not fit on one machine.
-- Run the file with psql, as the owner of the tables, on the coordinator of a cluster whose workers are registered, after
-- `shm migrate` and while no server runs: `psql -v ON_ERROR_STOP=1 -f sql/scale/citus.sql`. Existing rows are moved. Run
-- it again after an upgrade: it moves nothing then, and replaces what the new release has changed in this file.
-- Servers do not change: all of them connect to the coordinator and run the same statements.
-- docs/scaling.md explains when a cluster is useful and how many shards (`citus.shard_count`) to choose.

-- Only the snapshots are distributed, by instance: all snapshots of an instance are on the same worker, and joins of
-- snapshots by `instance_id` do not use the network. For this reason each unique key of this table contains
-- `instance_id`. Weekly partitions are distributed with their table. Servers create and attach new partitions; Citus
-- distributes each when it is attached.
SELECT create_distributed_table('snapshots', 'instance_id')
WHERE NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = 'snapshots'::regclass);

-- The function that computes the leaves of a metrics object: `shm check` runs it on the workers.
SELECT create_distributed_function('flatten_metrics(jsonb)');

-- Stores a batch by an INSERT with its rows as text. Citus divides their VALUES among the shards; the rows of a SELECT it
-- writes to files of the workers first, which takes several times as long. A batch is small: with one connection to each
-- worker it waits for no new connection, and its commit has one transaction to prepare on each.
CREATE OR REPLACE FUNCTION insert_snapshots(batch snapshots[])
RETURNS TABLE (instance_id uuid, snapshot_at timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    rows_of_batch text := (
        SELECT string_agg(
            format(
                '(%L, %L, %L, %L, %L, %L, %L, %L, %L, %L)', b.instance_id, b.snapshot_at, b.received_at, b.app_version,
                b.version_refused, b.sequence, b.metrics, b.app_slug, b.leaves, b.cursor
            ),
            ', '
        )
        FROM unnest(batch) b
    );
BEGIN
    IF rows_of_batch IS NOT NULL THEN
        PERFORM set_config('citus.max_adaptive_executor_pool_size', '1', TRUE);
        RETURN QUERY EXECUTE format(
            'INSERT INTO snapshots AS s (
                instance_id, snapshot_at, received_at, app_version, version_refused, sequence, metrics, app_slug, leaves,
                cursor
            )
            VALUES %s
            ON CONFLICT DO NOTHING
            RETURNING s.instance_id, s.snapshot_at',
            rows_of_batch
        );
    END IF;
END
$$;

-- All other tables stay on the coordinator. They are as fast there as on one machine, and all data of a cursor becomes
-- visible at the same moment:
-- local: instances, absences, versions_seen, applications, settings, tallies, distributions, series_head
-- local: series_hours, series_days, feed_head, removals, app_changes, tokens, erased_identities, signed_actions
-- local: aggregated_keys, aggregated_values, aggregated_versions, key_refusals, schema_migrations, audit, bulk_changes
-- local: application_aliases, database_sizes, failed_removals, erasure_receipts, events, event_head, background_rounds
-- local: metric_hints
