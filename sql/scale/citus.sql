-- Spreads SHM's tables over the workers of a Citus cluster: for fleets whose snapshots outgrow one machine. Run it once, by
-- psql as the owner of the tables, on the coordinator of a cluster that has its workers, after `shm migrate` and while no
-- server runs: `psql -v ON_ERROR_STOP=1 -f sql/scale/citus.sql`. What is there already is moved. Servers know nothing of
-- it: all of them connect to the coordinator, with the same statements as before. docs/scaling.md says when this is worth it.

-- What grows with the fleet lies on the workers, by the instance, and all that belongs to an instance on the same worker:
-- so a batch's rows go to where their instances are, and joins over `instance_id` need no network. That is also why each
-- unique key of these tables contains `instance_id`. Weeks of snapshots go along; new ones, which servers make and attach
-- as time goes on, are distributed by Citus as they are attached.
SELECT create_distributed_table('instances', 'instance_id');

SELECT create_distributed_table('snapshots', 'instance_id', colocate_with => 'instances');

SELECT create_distributed_table('absences', 'instance_id', colocate_with => 'instances');

SELECT create_distributed_table('versions_seen', 'instance_id', colocate_with => 'instances');

-- What is small and is joined with the former lies on each worker whole. `applications` is never written in a transaction
-- that scans instances; `settings`, what the counted words mean, is written only by a start that changes it.
SELECT create_reference_table('applications');

SELECT create_reference_table('settings');

-- What a metrics object's leaves are: `shm check` asks the workers for it.
SELECT create_distributed_function('flatten_metrics(jsonb)');

-- All else stays on the coordinator, where it is as fast as on one machine, and what is true at a cursor is true at once:
-- local: tallies, distributions, series_head, series_hours, series_days, feed_head, removals, app_changes, tokens, schema_migrations
-- Where a statement joins one of these with what is distributed, its rows go to the workers, and they are few: `feed_head` and
-- `series_head` have one. That is Citus's default, said here because the servers count on it.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET citus.local_table_join_policy = ''auto''', current_database()); END $$;
