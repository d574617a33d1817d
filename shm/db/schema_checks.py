"""Checks of a database before SHM creates anything in it or reads from it: each failure is one sentence.

A sentence names the database, the setting and the remedy.
"""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass

from shm.core.errors import ConfigurationError
from shm.db.connection import Connection
from shm.db.original_database import is_original

HISTORY_TABLE = "schema_migrations"
HISTORY_COLUMNS = {"version", "checksum", "applied_at"}
CREATE_STATEMENT = re.compile(r"^CREATE (?:OR REPLACE )?(?:UNIQUE )?(?:TABLE|INDEX|VIEW|FUNCTION) (\w+)", re.MULTILINE)
MIN_VERSION = 15

READ_STATE = """
SELECT
    current_setting('server_version_num')::integer, current_setting('server_version'),
    current_database(), current_user, coalesce(current_schema(), ''), current_setting('server_encoding'),
    pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), FALSE),
    (SELECT source FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only')"""
READ_RELATIONS = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
)"""
READ_NAMES = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema()
UNION
SELECT t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = current_schema() AND t.typelem = 0
UNION
SELECT p.proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = current_schema()"""
READ_HISTORY_COLUMNS = f"""
SELECT a.attname
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relname = '{HISTORY_TABLE}' AND a.attnum > 0
AND (a.attname <> 'version' OR a.atttypid = 'integer'::regtype)"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """A database as its role sees it. `schema` is the one that SHM's tables are or will be in, empty without one.

    `source` is the variable or flag that names the database, `version` that of PostgreSQL (`18.4`), `read_only_source`
    what set default_transaction_read_only.
    """

    source: str
    version: str
    database: str
    role: str
    schema: str
    encoding: str
    is_standby: bool
    is_read_only: bool
    may_create: bool
    read_only_source: str
    relations: Set[str]
    """The names of tables, views, indexes and sequences in the schema, but not those of extensions."""
    names: Set[str]
    """The names of all that is in the schema, including types, functions and what extensions have created."""
    has_history: bool
    """Whether SHM's own table of applied migrations exists."""
    is_original: bool
    """Whether it is a database of the original server."""
    sslmode: str
    """That of the connection, and `require` where the connection has TLS without requiring it."""

    @property
    def major(self) -> str:
        """The major version of PostgreSQL."""
        return re.split(r"[^0-9]", self.version)[0]

    def empty_database_hint(self) -> str:
        """The remedy for a database that somebody else uses."""
        return f"Start with an empty database: another `{self.source}` or, without one, another `SHM_DATA_DIR`."


async def read_state(connection: Connection, source: str) -> DatabaseState:
    """Reads the state. Raises ConfigurationError for a database that is too old, or cannot store every text."""
    (
        (version_number, version, database, role, schema, encoding, standby, read_only, may_create, read_only_source),
    ) = await connection.execute_sql(READ_STATE, "state of the database")
    check_version(int(str(version_number)), str(version), str(database), source)
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database {database} in {source} has the encoding {encoding}, in which not every text can be stored: "
            "create another one with `createdb --encoding=UTF8 --template=template0 NAME`, and name it in "
            f"{source}."
        )
    relations = {str(name) for (name,) in await connection.execute_sql(READ_RELATIONS, "list of tables")}
    names = {str(name) for (name,) in await connection.execute_sql(READ_NAMES, "list of names")}
    columns = {str(name) for (name,) in await connection.execute_sql(READ_HISTORY_COLUMNS, "columns of the history")}
    return DatabaseState(
        *(
            source,
            str(version).partition(" ")[0],
            str(database),
            str(role),
            str(schema),
            str(encoding),
            bool(standby),
            bool(read_only),
        ),
        *(bool(may_create), str(read_only_source)),
        relations,
        names,
        columns >= HISTORY_COLUMNS,
        await is_original(connection),
        connection.sslmode,
    )


def check_version(number: int, version: str, database: str, source: str) -> None:
    """Raises ConfigurationError for a PostgreSQL that is too old. `number` is its server_version_num."""
    if number < MIN_VERSION * 10_000:
        raise ConfigurationError(
            f"The database {database} in {source} is on PostgreSQL {version}, and SHM requires {MIN_VERSION} or newer: "
            f"upgrade that server, or name a database on another one in {source}."
        )


def check_writable(state: DatabaseState) -> None:
    """Raises ConfigurationError for a database that SHM cannot write to."""
    if state.is_standby:
        raise ConfigurationError(
            f"The database {state.database} in {state.source} is on a read-only server, a standby: name the primary "
            f"in {state.source}, or several hosts with target_session_attrs=read-write."
        )
    if state.is_read_only:
        raise ConfigurationError(
            f"The database {state.database} in {state.source} is read-only, because default_transaction_read_only is "
            f"on: {_read_only_remedy(state)}."
        )


def _read_only_remedy(state: DatabaseState) -> str:
    target = {
        "database": f'DATABASE "{state.database}"',
        "global": "ROLE ALL",
        "user": f'ROLE "{state.role}"',
        "database user": f'ROLE "{state.role}" IN DATABASE "{state.database}"',
    }.get(state.read_only_source)
    if target is not None:
        return f"run `ALTER {target} SET default_transaction_read_only = off`"
    if state.read_only_source == "client":
        return f"remove it from the options in {state.source} and from PGOPTIONS"
    return (
        "run `ALTER SYSTEM RESET default_transaction_read_only` and `SELECT pg_reload_conf()`, or set it to off in "
        "postgresql.conf"
    )


def check_can_create(state: DatabaseState) -> None:
    """Raises ConfigurationError for a role that cannot create tables."""
    if not state.schema:
        raise ConfigurationError(
            f"The database {state.database} in {state.source} has no schema that the role {state.role} may use: run "
            f'`CREATE SCHEMA "{state.role}" AUTHORIZATION "{state.role}"` in it, or name another role in '
            f"{state.source}."
        )
    if not state.may_create:
        raise ConfigurationError(
            f"The role {state.role} may create no tables in the schema {state.schema} of the database "
            f'{state.database}: run `GRANT USAGE, CREATE ON SCHEMA "{state.schema}" TO "{state.role}"` in it, or name '
            f"another role in {state.source}."
        )


def check_no_conflicts(state: DatabaseState, applied: Iterable[str], missing: Iterable[str]) -> None:
    """Raises ConfigurationError if another application uses names that the missing migrations create.

    `applied` and `missing` are the SQL of migrations. Nothing is created in such a database.
    """
    names = _created_names(missing) - _created_names(applied)
    if not state.has_history:
        names.add(HISTORY_TABLE)
    if state.is_original and not state.has_history:
        raise ConfigurationError(
            f"The database {state.database} in {state.source} is of the original SHM server, which stays as it is: "
            f"name an empty one in {state.source}, and import this one into it with `shm import --from-dsn` and "
            "its DSN."
        )
    if conflicting := sorted(state.names & names):
        raise ConfigurationError(
            f"The database {state.database} in {state.source} has tables, types or functions with the names of SHM's "
            f"own ({', '.join(conflicting)}), and no record that SHM created them: another application uses it. "
            f"{state.empty_database_hint()}"
        )


def _created_names(migrations: Iterable[str]) -> set[str]:
    return {name for sql in migrations for name in CREATE_STATEMENT.findall(sql)}
