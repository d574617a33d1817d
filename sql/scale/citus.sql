-- Distributes SHM's tables over the workers of a Citus cluster, for fleets whose snapshots do not fit on one machine.
-- Run the file once with psql, as the owner of the tables, on the coordinator of a cluster whose workers are
-- registered, after `shm migrate` and while no server runs: `psql -v ON_ERROR_STOP=1 -f sql/scale/citus.sql`. Existing
-- rows are moved. Servers do not change: all of them connect to the coordinator and run the same statements.
-- docs/scaling.md explains when a cluster is useful.

-- Tables that grow with the fleet are distributed over the workers by instance. All rows of an instance are on the same
-- worker. The rows of a batch therefore go to the workers of their instances, and joins over `instance_id` do not use
-- the network. For this reason each unique key of these tables contains `instance_id`. Weekly partitions of snapshots
-- are distributed with their table. Servers create and attach new partitions; Citus distributes each when it is
-- attached.
SELECT create_distributed_table('instances', 'instance_id');

SELECT create_distributed_table('snapshots', 'instance_id', colocate_with => 'instances');

SELECT create_distributed_table('absences', 'instance_id', colocate_with => 'instances');

SELECT create_distributed_table('versions_seen', 'instance_id', colocate_with => 'instances');

-- Small tables that are joined with distributed ones are copied to each worker. No transaction that scans instances
-- writes `applications`. `settings` contains the definitions behind the counts; only a server start that changes them
-- writes it.
SELECT create_reference_table('applications');

SELECT create_reference_table('settings');

-- The function that computes the leaves of a metrics object: `shm check` runs it on the workers.
SELECT create_distributed_function('flatten_metrics(jsonb)');
SELECT create_distributed_function('leaf_keys(jsonb)');

-- All other tables stay on the coordinator. They are as fast there as on one machine, and all data of a cursor becomes
-- visible at the same moment:
-- local: tallies, distributions, series_head, series_hours, series_days, feed_head
-- local: removals, app_changes, tokens, erased_identities, signed_actions, aggregated_keys
-- local: aggregated_values, key_refusals, schema_migrations, audit, bulk_changes, application_aliases
-- If a statement joins one of these tables with a distributed one, Citus sends the rows of the local table to the
-- workers. The rows are few: `feed_head` and `series_head` have one each. This policy is the default of Citus; it is
-- set explicitly because the servers depend on it.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET citus.local_table_join_policy = ''auto''', current_database()); END $$;
