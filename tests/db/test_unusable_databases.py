"""Databases that SHM cannot use or must not touch: one sentence with database, setting and remedy, and no change."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from shm.core.errors import ConfigurationError
from shm.db.embedded.role import ROLE
from shm.db.schema_checks import DatabaseState, check_version, check_writable
from tests.support.databases import admin_cursor, create_database, empty_database, migrate, superuser_cursor
from tests.support.parameters import long_after, long_rows_after
from tests.support.shm_command import run_shm

COMMANDS = [("serve", "--port", "0"), ("migrate",), ("token", "add", "x")]
READING_COMMANDS = [("check",), ("export",), ("token", "list")]
SELECT_OBJECTS = "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"


def objects_of(dsn: str) -> set[tuple[str, ...]]:
    """The names of all tables, indexes and the like that do not belong to PostgreSQL."""
    with superuser_cursor(dsn) as cursor:
        cursor.execute(SELECT_OBJECTS)
        return set(cursor.fetchall())


def check_refusal(dsn: str, command: tuple[str, ...], *words: str) -> None:
    """A command ends with one sentence that has these words and the database's name, and has changed nothing."""
    before = objects_of(dsn)
    done = run_shm(*command, SHM_DB_DSN=dsn, SHM_START_PATIENCE="1s")
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("shm: ")]
    for word in (*words, str(parse_dsn(dsn)["dbname"])):
        assert word in line
    assert "Traceback" not in done.stderr
    assert objects_of(dsn) == before


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The DSN of a database without any table."""
    with empty_database(postgres) as dsn:
        yield dsn


@contextmanager
def role_without_rights(dsn: str) -> Iterator[str]:
    """The name of a role that may log in, and nothing else."""
    name = f"shm_{secrets.token_hex(6)}"
    with superuser_cursor(dsn) as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    with superuser_cursor(dsn) as cursor:
        cursor.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("command", long_after(1, COMMANDS))
def test_a_role_that_may_not_create_tables_is_refused(empty: str, command: tuple[str, ...]) -> None:
    with role_without_rights(empty) as role:
        grant = f'`GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}"`'
        check_refusal(make_dsn(empty, user=role), command, grant, "SHM_DB_DSN")
        with superuser_cursor(empty) as cursor:
            cursor.execute(grant.strip("`"))
        assert run_shm("migrate", SHM_DB_DSN=make_dsn(empty, user=role)).returncode == 0


@pytest.mark.parametrize("command", long_after(1, COMMANDS))
def test_a_database_without_a_schema_is_refused(empty: str, command: tuple[str, ...]) -> None:
    with superuser_cursor(empty) as cursor:
        cursor.execute("DROP SCHEMA public")
    check_refusal(empty, command, f'`CREATE SCHEMA "{ROLE}" AUTHORIZATION "{ROLE}"`', "SHM_DB_DSN")
    with superuser_cursor(empty) as cursor:
        cursor.execute(f'CREATE SCHEMA "{ROLE}" AUTHORIZATION "{ROLE}"')
    assert run_shm("migrate", SHM_DB_DSN=empty).returncode == 0
    assert run_shm("check", SHM_DB_DSN=empty).returncode == 0


@pytest.mark.parametrize("encoding", ["LATIN1", pytest.param("SQL_ASCII", marks=pytest.mark.long)])
@pytest.mark.parametrize("command", long_after(1, [*COMMANDS, *READING_COMMANDS]))
def test_a_database_that_cannot_store_every_text_is_refused(
    postgres: str, encoding: str, command: tuple[str, ...]
) -> None:
    name = f"shm_{secrets.token_hex(6)}"
    options = f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    dsn = create_database(postgres, name, options)
    try:
        check_refusal(dsn, command, encoding, "createdb --encoding=UTF8", "SHM_DB_DSN")
    finally:
        with superuser_cursor(postgres) as cursor:
            cursor.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize("is_migrated", [False, True])
@pytest.mark.parametrize("command", long_after(1, COMMANDS))
def test_a_read_only_database_is_refused(empty: str, command: tuple[str, ...], *, is_migrated: bool) -> None:
    if is_migrated:
        migrate(empty)
    name = parse_dsn(empty)["dbname"]
    with superuser_cursor(empty) as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    check_refusal(empty, command, "is read-only", "SET default_transaction_read_only = off`", "SHM_DB_DSN")


@pytest.mark.parametrize(
    ("target", "remedy"),
    long_rows_after(
        1,
        [
            ("ROLE {role} IN DATABASE {database}", 'ALTER ROLE "{role}" IN DATABASE "{database}" SET'),
            ("ROLE {role}", 'ALTER ROLE "{role}" SET'),
            ("DATABASE {database}", 'ALTER DATABASE "{database}" SET'),
        ],
    ),
)
def test_the_remedy_for_a_read_only_database_works(empty: str, target: str, remedy: str) -> None:
    """It names what has the setting: a role's overrides that of the database."""
    with superuser_cursor(empty) as cursor:
        role = f"shm_{secrets.token_hex(6)}"
        names = {"role": role, "database": str(parse_dsn(empty)["dbname"])}
        cursor.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")
        try:
            cursor.execute(f"ALTER {target.format(**names)} SET default_transaction_read_only = on")
            dsn = make_dsn(empty, user=role)
            command = f"{remedy.format(**names)} default_transaction_read_only = off"
            check_refusal(dsn, ("migrate",), f"`{command}`")
            cursor.execute(command)
            assert run_shm("migrate", SHM_DB_DSN=dsn).returncode == 0
        finally:
            cursor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("source", "remedy"), [("global", "ALTER ROLE ALL SET"), ("configuration file", "ALTER SYSTEM RESET")]
)
def test_a_setting_of_the_whole_server_is_named(source: str, remedy: str) -> None:
    state = DatabaseState(
        "--dsn",
        "18.4",
        "shm",
        "shm",
        "public",
        "UTF8",
        False,
        True,
        True,
        source,
        frozenset(),
        frozenset(),
        True,
        False,
        "prefer",
    )
    with pytest.raises(ConfigurationError, match=remedy):
        check_writable(state)


def test_a_read_only_option_of_the_dsn_is_named(empty: str) -> None:
    dsn = make_dsn(empty, options="-c default_transaction_read_only=on")
    check_refusal(dsn, ("migrate",), "remove it from the options in SHM_DB_DSN")


@pytest.mark.parametrize("number", [90624, 140012])
def test_an_old_postgresql_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match=r"shm in DATABASE_URL is on PostgreSQL .* SHM requires 15 or newer"):
        check_version(number, f"{number // 10_000}.{number % 10_000}", "shm", "DATABASE_URL")
    check_version(150000, "15.0", "shm", "DATABASE_URL")


SOURCES = ["DATABASE_URL_FILE", "--dsn", "SHM_DB_DSN", "DATABASE_URL", "SHM_DB_DSN_FILE"]


@pytest.mark.parametrize("source", long_after(1, SOURCES))
def test_an_error_names_the_variable_that_the_dsn_comes_from(
    postgres: str, database: str, tmp_path: Path, source: str
) -> None:
    """Of a server that cannot be reached, a DSN that is malformed, and a database that is unusable."""
    with superuser_cursor(database) as cursor:
        cursor.execute(f"ALTER DATABASE {parse_dsn(database)['dbname']} SET default_transaction_read_only = on")
    for dsn in (make_dsn(postgres, dbname="no_such"), "postgresql://u:p@q@host/db", "x=y", database):
        file = tmp_path / "dsn"
        file.write_text(dsn)
        arguments = ["--dsn", dsn] if source == "--dsn" else []
        environment = {} if arguments else {source: str(file) if source.endswith("_FILE") else dsn}
        done = run_shm("migrate", *arguments, SHM_START_PATIENCE="1s", **environment)
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if source in line]
        assert lines, done.stderr
        assert "Traceback" not in done.stderr
        others = {"SHM_DB_DSN", "DATABASE_URL", "--dsn"} - {source}
        for line in lines:
            assert not any(other in line.replace(source, "") for other in others)


@pytest.mark.parametrize("command", long_after(1, READING_COMMANDS))
def test_a_command_that_only_reads_works_on_a_read_only_database(database: str, command: tuple[str, ...]) -> None:
    with superuser_cursor(database) as cursor:
        cursor.execute(f"ALTER DATABASE {parse_dsn(database)['dbname']} SET default_transaction_read_only = on")
    done = run_shm(*command, SHM_DB_DSN=database)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", long_after(1, READING_COMMANDS))
def test_a_command_that_only_reads_creates_no_schema(empty: str, command: tuple[str, ...]) -> None:
    check_refusal(empty, command, "does not exist yet", "`shm migrate`")


@pytest.mark.parametrize(
    "ddl",
    long_after(
        1,
        [
            "CREATE TABLE tokens (id bigint)",
            "CREATE VIEW settings AS SELECT 1 AS a",
            "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)",  # of Ruby on Rails
            "CREATE TABLE schema_migrations (version bigint, dirty boolean)",  # of golang-migrate
            "CREATE SEQUENCE erased_identities",
            "CREATE TABLE schema_migrations (version text, checksum text, applied_at timestamptz)",
            "CREATE DOMAIN settings AS integer",
            "CREATE FUNCTION flatten_metrics (jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'",
            "CREATE INDEX instances_by_cursor ON unrelated (id)",
        ],
    ),
)
def test_a_database_of_another_application_is_refused(empty: str, ddl: str) -> None:
    with admin_cursor(empty) as cursor:
        cursor.execute("CREATE TABLE unrelated (id bigint)")
        cursor.execute(ddl)
    for command in COMMANDS:
        check_refusal(empty, command, ddl.split()[2], "another application uses it", "SHM_DB_DSN")


def test_a_table_of_another_application_stops_a_later_migration(empty: str) -> None:
    """Migrations after the first one are checked too, before any of them begins."""
    migrate(empty)
    with admin_cursor(empty) as cursor:
        cursor.execute("DELETE FROM schema_migrations WHERE version > 1; DROP TABLE erased_identities")
        cursor.execute("CREATE TABLE erased_identities (id bigint)")
    check_refusal(empty, ("migrate",), "erased_identities", "another application uses it")


def test_a_migration_that_fails_leaves_no_table_behind(empty: str) -> None:
    with superuser_cursor(empty) as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no index is created here'; END$$;"
            "CREATE EVENT TRIGGER refusal ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION refuse()"
        )
    done = run_shm("migrate", SHM_DB_DSN=empty)
    assert done.returncode == 1
    assert "PostgreSQL refused migration 0001_schema.sql" in done.stderr
    assert "Traceback" not in done.stderr
    assert objects_of(empty) == set()


def test_tables_of_other_schemas_are_not_ours(empty: str) -> None:
    with superuser_cursor(empty) as cursor:
        cursor.execute(f"CREATE SCHEMA other AUTHORIZATION {ROLE}; CREATE TABLE other.instances (id bigint)")
    migrate(empty)
    with admin_cursor(empty) as cursor:
        cursor.execute("SELECT count(*) FROM public.instances")
        assert cursor.fetchone() == (0,)
