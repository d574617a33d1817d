"""Session settings of a role, a database or libpq's environment change no result of SHM's statements."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from shm.core.settings import Settings
from shm.db.database import Database
from shm.db.embedded.role import ROLE
from shm.db.session import SESSION_SETTINGS
from tests.support import plain_http
from tests.support.databases import superuser_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

METRICS = {"city": "北京", "ratio": 0.1, "big": 12345678901234567890, "on": True}
ROLE_SETTINGS = {
    "client_encoding": "LATIN1",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "search_path": "nowhere",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "1",
    "gin_fuzzy_search_limit": "1",
    "exit_on_error": "on",
    "idle_session_timeout": "100",
    "idle_in_transaction_session_timeout": "1",
    "statement_timeout": "1",
    "transaction_timeout": "200",
    "restrict_nonsystem_relation_kind": "view",
}
LIBPQ_ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGTZ": "Asia/Kathmandu",
    "PGDATESTYLE": "German",
    "PGOPTIONS": "-c statement_timeout=1 -c bytea_output=escape",
}


def set_for_role(database: str, **settings: str) -> None:
    """Sets settings of SHM's role in one database."""
    name = parse_dsn(database)["dbname"]
    with superuser_cursor(database) as cursor:
        for setting, value in settings.items():
            cursor.execute(f"ALTER ROLE {ROLE} IN DATABASE {name} SET {setting} = %s", [value])


def test_settings_of_role_and_environment_change_no_answer(serve: Callable[..., ServerProcess], database: str) -> None:
    reference = serve()
    first = Install(reference.url).enroll(METRICS)
    set_for_role(database, **ROLE_SETTINGS)
    server = serve(SHM_ADMIN_TOKEN=reference.admin_token, **LIBPQ_ENVIRONMENT)

    def get(of: ServerProcess, path: str) -> Any:
        url = f"{of.url}/api/v1/admin/{path}"
        return plain_http.get(url, headers=reference.headers).raise_for_status().json()

    second = Install(server.url).enroll(METRICS)
    metrics = {item["instance_id"]: item["metrics"] for item in get(server, "instances")}
    assert metrics == {install.instance_id: METRICS for install in (first, second)}
    for path in ("instances", "applications", "tokens"):
        assert get(server, path) == get(reference, path)
    assert "Traceback" not in server.log


async def test_every_connection_has_the_settings_that_statements_expect(database: str) -> None:
    set_for_role(database, **ROLE_SETTINGS)
    expected = SESSION_SETTINGS | {"client_encoding": "UTF8", "synchronous_commit": "local", "search_path": "public"}
    expected |= {"transaction_timeout": "0", "restrict_nonsystem_relation_kind": ""}
    expected |= {"idle_in_transaction_session_timeout": "30s", "statement_timeout": "0"}
    async with Database.connect(Settings.load({}), database, 1) as pool, pool.dedicated_connection() as connection:
        for setting, value in expected.items():
            assert await connection.execute_sql(f"SHOW {setting}", setting) == [(value,)], setting
        assert await pool.fetch_value(int, "kpis.count_new_this_week") == 0


@pytest.mark.long
def test_session_settings_of_the_database_or_the_role_stop_no_command(database: str) -> None:
    """Also not a time limit that a transaction of the commands exceeds."""
    set_for_role(database, **ROLE_SETTINGS)
    name = parse_dsn(database)["dbname"]
    with superuser_cursor(database) as cursor:
        for setting, value in ROLE_SETTINGS.items():
            cursor.execute(f"ALTER DATABASE {name} SET {setting} = %s", [value])
    for command in (("migrate",), ("token", "add", "x"), ("check",), ("export",)):
        done = run_shm(*command, SHM_DB_DSN=database)
        assert done.returncode == 0, done.stderr


async def test_a_commit_waits_for_standbys_where_the_server_says_so(database: str) -> None:
    set_for_role(database, synchronous_commit="remote_apply")
    async with Database.connect(Settings.load({}), database, 1) as pool, pool.dedicated_connection() as connection:
        assert await connection.execute_sql("SHOW synchronous_commit", "x") == [("remote_apply",)]


async def test_options_of_the_dsn_name_the_schema_and_nothing_else(database: str) -> None:
    with superuser_cursor(database) as cursor:
        cursor.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA metrics AUTHORIZATION {ROLE}")
    dsn = make_dsn(database, options="-c search_path=metrics -c timezone=Asia/Kathmandu -c statement_timeout=1")
    async with Database.connect(Settings.load({}), dsn, 1) as pool, pool.dedicated_connection() as connection:
        assert await connection.execute_sql("SHOW search_path", "x") == [("metrics",)]
        assert await connection.execute_sql("SHOW timezone", "x") == [("UTC",)]
