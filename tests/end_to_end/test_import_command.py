"""`shm import --from-dsn` takes over a database of the original, whose installs go on reporting without noticing."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg2.extras
import pytest

from tests.support import plain_http
from tests.support.databases import admin_cursor, empty_database, select_column
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

# The columns of the original's tables that hold data.
CREATE_ORIGINAL = """
    CREATE TABLE applications (
        id uuid PRIMARY KEY, app_slug text UNIQUE, app_name text, github_url text, github_stars int,
        github_stars_updated_at timestamptz, logo_url text, created_at timestamptz, updated_at timestamptz
    );
    CREATE TABLE instances (
        id uuid DEFAULT gen_random_uuid(), instance_id uuid UNIQUE, public_key bytea, app_name text, app_version text,
        deployment_mode text, environment text, os_arch text, status text, last_seen_at timestamptz,
        created_at timestamptz, application_id uuid
    );
    CREATE TABLE snapshots (id bigserial, instance_id uuid, snapshot_at timestamptz, data jsonb);
"""
APPLICATION_ID = "3f0b2c64-9f1e-4a53-8d0a-3c1c6a3b7d15"
OLD_SLUG, SLUG = "c-tool", "c-tool-3818c7d9"
NOW = datetime.now(UTC)
LAST_SEEN = NOW - timedelta(days=2)


def add_instance(dsn: str, install: Install, status: str, last_seen_at: datetime, *, key: bytes | None = None) -> None:
    """A row of the original's `instances`: the key is its hex digits as text."""
    with admin_cursor(dsn) as cursor:
        cursor.execute(
            "INSERT INTO instances (instance_id, public_key, app_name, app_version, deployment_mode, environment, "
            "os_arch, status, last_seen_at, created_at, application_id) "
            "VALUES (%s, %s, %s, %s, 'docker', 'production', 'linux/amd64', %s, %s, %s, %s)",
            (
                *(install.instance_id, install.public_key.encode() if key is None else key, install.app_name),
                *(install.app_version, status, last_seen_at, NOW - timedelta(days=60), APPLICATION_ID),
            ),
        )


def add_snapshots(dsn: str, install: Install, ages: list[timedelta], metrics: dict[str, object]) -> None:
    """Rows of the original's `snapshots`."""
    with admin_cursor(dsn) as cursor:
        for age in ages:
            cursor.execute(
                "INSERT INTO snapshots (instance_id, snapshot_at, data) VALUES (%s, %s, %s)",
                (install.instance_id, NOW - age, psycopg2.extras.Json(metrics)),
            )


@pytest.fixture
def original(postgres: str) -> Iterator[str]:
    """The DSN of a database of the original with one application."""
    with empty_database(postgres) as dsn:
        with admin_cursor(dsn) as cursor:
            cursor.execute(CREATE_ORIGINAL)
            cursor.execute(
                "INSERT INTO applications VALUES (%s, %s, 'C++ Tool', 'https://github.com/example/tool', 42, %s, "
                "'https://example.com/logo.png', %s, now())",
                (APPLICATION_ID, OLD_SLUG, LAST_SEEN, NOW - timedelta(days=60)),
            )
        yield dsn


def test_the_start_on_a_database_of_the_original_names_the_import(original: str) -> None:
    done = run_shm("serve", "--port", "0", SHM_DB_DSN=original)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("shm: ")]
    assert "of the original SHM server" in line
    assert "`shm import --from-dsn`" in line
    assert "Traceback" not in done.stderr
    assert select_column(original, "SELECT count(*) FROM pg_tables WHERE tablename = 'schema_migrations'") == [0]


def test_a_database_of_another_kind_is_not_imported(database: str) -> None:
    done = run_shm("import", "--from-dsn", database, SHM_DB_DSN=database)
    assert done.returncode == 1
    assert "is not one of the original server" in done.stderr


def test_the_installs_of_the_original_go_on_reporting(
    original: str, database: str, serve: Callable[..., ServerProcess]
) -> None:
    active, silent, revoked, pending, broken = (Install("", app_name="C++ Tool") for _ in range(5))
    add_instance(original, active, "active", LAST_SEEN)
    add_instance(original, silent, "active", NOW - timedelta(days=45))
    add_instance(original, revoked, "revoked", LAST_SEEN)
    add_instance(original, pending, "pending", LAST_SEEN)
    add_instance(original, broken, "active", LAST_SEEN, key=b"no hex digits")
    ages = [timedelta(days=2 + 3 * number) for number in range(20)] + [timedelta(days=400)]
    add_snapshots(original, active, ages, {"orders": 7.5, "mail": {"sent": 3}, "beta": True, "list": [1]})
    add_snapshots(original, silent, [timedelta(days=45)], {"orders": 1})
    add_snapshots(original, revoked, [timedelta(days=3)], {"orders": 100})
    command = ("import", "--from-dsn", original)
    first = run_shm(*command, SHM_DB_DSN=database)
    assert (first.returncode, first.stdout.splitlines()) == (
        0,
        [
            "imported 1 applications, 3 installs and 21 snapshots",
            "skipped 1 installs that never proved their key",
            "skipped 1 installs with an invalid key or text",
            "skipped 1 snapshots of installs that are revoked or skipped",
            "skipped 1 snapshots older than SHM_RETENTION",
        ],
    ), first.stderr
    again = run_shm(*command, SHM_DB_DSN=database).stdout.splitlines()
    assert again[:2] == [
        "imported 0 applications, 0 installs and 0 snapshots",
        "already here: 3 installs and 21 snapshots",
    ]
    server = serve()
    items = {item["instance_id"]: item for item in server.get(f"instances?app={OLD_SLUG}").json()}
    assert items.keys() == {active.instance_id, silent.instance_id, revoked.instance_id}
    assert datetime.fromisoformat(items[active.instance_id]["last_seen_at"]) == LAST_SEEN
    assert items[active.instance_id]["metrics"]["orders"] == 7.5
    for slug in (OLD_SLUG, SLUG):
        application = server.get(f"applications/{slug}").json()
        assert (application["id"], application["slug"], application["stars"]) == (APPLICATION_ID, SLUG, 42)
        assert (application["instances"]["active"], application["instances"]["revoked"]) == (1, 1)
    assert "too few installs" in plain_http.get(f"{server.url}/badge/{OLD_SLUG}/instances").text
    for install, status in ((active, 202), (silent, 202), (revoked, 403)):
        install.url = server.url
        assert install.register().status_code == (200 if status == 202 else 403)
        assert install.snapshot({"orders": 8}).status_code == status
    assert server.get(f"applications/{SLUG}").json()["instances"]["active"] == 2
    server.terminate()
    checked = run_shm("check", SHM_DB_DSN=database)
    assert checked.returncode == 0, checked.stdout + checked.stderr
