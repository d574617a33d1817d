"""Weekly partitions of the past, which a server creates only as far back as it accepts snapshots."""

# Weekly partitions since a time, in place of the partition that a new database has.
CREATE_OLD_PARTITIONS_SQL = """
    DO $$
    DECLARE week timestamptz; partition text;
    BEGIN
        FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'snapshots'::regclass
        LOOP
            EXECUTE 'DROP TABLE ' || partition;
        END LOOP;
        FOR week IN SELECT generate_series(
            date_trunc('week', now() - %s, 'UTC'), date_trunc('week', now(), 'UTC') + %s, interval '7 days'
        )
        LOOP
            EXECUTE format(
                'CREATE TABLE %%I PARTITION OF snapshots FOR VALUES FROM (%%L) TO (%%L)',
                'snapshots_' || to_char(week AT TIME ZONE 'UTC', 'IYYY"w"IW'), week, week + interval '7 days'
            );
        END LOOP;
    END $$;
"""
