-- Distributes SHM's snapshots over the workers of a Citus cluster, for a history that does not fit on one machine.
-- Run the file once with psql, as the owner of the tables, on the coordinator of a cluster whose workers are
-- registered, after `shm migrate` and while no server runs: `psql -v ON_ERROR_STOP=1 -f sql/scale/citus.sql`. Existing
-- rows are moved. Servers do not change: all of them connect to the coordinator and run the same statements.
-- docs/scaling.md explains when a cluster is useful and how many shards (`citus.shard_count`) to choose.

-- Only the snapshots are distributed, by instance: all snapshots of an instance are on the same worker, and joins of
-- snapshots by `instance_id` do not use the network. For this reason each unique key of this table contains
-- `instance_id`. Weekly partitions are distributed with their table. Servers create and attach new partitions; Citus
-- distributes each when it is attached.
SELECT create_distributed_table('snapshots', 'instance_id');

-- The function that computes the leaves of a metrics object: `shm check` runs it on the workers.
SELECT create_distributed_function('flatten_metrics(jsonb)');

-- A batch of snapshots is small. With one connection to each worker it waits for no new connection, and its commit has
-- one transaction to prepare on each.
ALTER FUNCTION find_snapshots(uuid[], timestamptz[]) SET citus.max_adaptive_executor_pool_size = 1;
ALTER FUNCTION insert_snapshots(snapshots[]) SET citus.max_adaptive_executor_pool_size = 1;

-- All other tables stay on the coordinator. They are as fast there as on one machine, and all data of a cursor becomes
-- visible at the same moment:
-- local: instances, absences, versions_seen, applications, settings, tallies, distributions, series_head
-- local: series_hours, series_days, feed_head, removals, app_changes, tokens, erased_identities, signed_actions
-- local: aggregated_keys, aggregated_values, aggregated_versions, key_refusals, schema_migrations, audit, bulk_changes
-- local: application_aliases, database_sizes, failed_removals
