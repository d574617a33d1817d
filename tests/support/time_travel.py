"""Moves all timestamps of a database into the past, as if all events had happened earlier.

The shift is in whole days, so the hour of each timestamp stays the same. Derived values are not recomputed: the server
has to refresh those that depend on the current time.
"""

from datetime import timedelta

import psycopg2
from psycopg2 import sql

from shm.db.advisory_locks import Lock

UNCHANGED_TABLES = ["schema_migrations", "tokens"]

# Tables with timestamps, with the parent for partitions; and all their columns, `true` for a timestamp.
TABLES = """
    SELECT c.relname, array_agg(a.attname ORDER BY a.attnum)::text[],
        array_agg(a.atttypid = 'timestamptz'::regtype ORDER BY a.attnum)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE
        c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname <> ALL(%s)
    GROUP BY c.relname
    HAVING bool_or(a.atttypid = 'timestamptz'::regtype)
"""

# The only timestamp that is stored as text: the hour in which instances were first seen.
SHIFT_NEW_TALLIES = """
    CREATE TEMP TABLE shifted ON COMMIT DROP AS SELECT * FROM tallies WHERE metric_type = 'new';
    DELETE FROM tallies WHERE metric_type = 'new';
    UPDATE shifted SET key = to_char((key || ':00')::timestamp - %s, 'YYYY-MM-DD"T"HH24');
    INSERT INTO tallies SELECT * FROM shifted;
"""


def shift_times(database: str, by: timedelta) -> None:
    """Moves all timestamps `by` whole days into the past, while no other statement changes the database."""
    assert by == timedelta(days=by.days), "the shift must be whole days, so that hours and midnights stay the same"
    connection = psycopg2.connect(database)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [Lock.ROLLUP])
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [Lock.WRITERS])
            cursor.execute(TABLES, [UNCHANGED_TABLES])
            for table, columns, are_timestamps in cursor.fetchall():
                _shift_table(cursor, table, dict(zip(columns, are_timestamps, strict=True)), by)
            cursor.execute(SHIFT_NEW_TALLIES, [by])
    finally:
        connection.close()


def _shift_table(cursor: psycopg2.extensions.cursor, table: str, columns: dict[str, bool], by: timedelta) -> None:
    """Moves rows through a temporary table, so that no unique key conflicts with a row that is not moved yet."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    shifted = sql.SQL(", ").join(
        sql.SQL("{} - {}").format(sql.Identifier(name), sql.Literal(by)) if is_timestamp else sql.Identifier(name)
        for name, is_timestamp in columns.items()
    )
    statement = sql.SQL(
        "CREATE TEMP TABLE {temporary} ON COMMIT DROP AS SELECT * FROM {table}; DELETE FROM {table};"
        " INSERT INTO {table} ({names}) SELECT {shifted} FROM {temporary}"
    )
    temporary = sql.Identifier(f"shifted_{table}")
    cursor.execute(statement.format(temporary=temporary, table=sql.Identifier(table), names=names, shifted=shifted))
