-- PostgreSQL analyzes snapshots without these columns: no statement selects rows by their whole objects, and to compare
-- those of a sample took nine tenths of the time. Citus changes no such setting of a distributed table; weeks that are
-- created later have it there too.

DO $$
BEGIN
    IF to_regclass('pg_dist_partition') IS NULL THEN
        ALTER TABLE snapshots ALTER COLUMN metrics SET STATISTICS 0, ALTER COLUMN leaves SET STATISTICS 0;
    END IF;
END
$$;
