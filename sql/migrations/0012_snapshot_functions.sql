-- Functions that read and write snapshots within larger statements. Citus plans only what is inside of them, and neither
-- plans nor divides the statement around them, whose other tables are on the coordinator.

-- The stored snapshots among pairs of an instance and a time.
CREATE FUNCTION find_snapshots(instance_ids uuid[], times timestamptz[]) RETURNS SETOF snapshots
LANGUAGE plpgsql STABLE ROWS 10 AS $$
BEGIN
    IF cardinality(instance_ids) > 0 THEN
        RETURN QUERY
        SELECT s.*
        FROM unnest(instance_ids, times) wanted (instance_id, snapshot_at)
        JOIN snapshots s ON s.instance_id = wanted.instance_id AND s.snapshot_at = wanted.snapshot_at;
    END IF;
END
$$;

-- Stores snapshots, and returns those that were not stored before. sql/scale/citus.sql replaces it.
CREATE FUNCTION insert_snapshots(batch snapshots[]) RETURNS TABLE (instance_id uuid, snapshot_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    INSERT INTO snapshots AS s SELECT * FROM unnest(batch)
    ON CONFLICT DO NOTHING
    RETURNING s.instance_id, s.snapshot_at;
END
$$;
