"""`shm import --from-dsn` takes over a database of the original, whose installs go on reporting without noticing."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg2.extras
import pytest

from tests.support import plain_http
from tests.support.databases import admin_cursor, empty_database, select_column
from tests.support.installs import Install
from tests.support.original_schema import CREATE_ORIGINAL
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm

DROP_CONSTRAINTS = """
    ALTER TABLE applications DROP CONSTRAINT applications_pkey, ALTER id DROP NOT NULL,
        DROP CONSTRAINT applications_app_slug_key, ALTER github_stars TYPE bigint;
    ALTER TABLE instances DROP CONSTRAINT instances_instance_id_key;
    ALTER TABLE snapshots ALTER id DROP NOT NULL;
"""
TRAP = """
    CREATE TABLE trap ();
    CREATE FUNCTION spring() RETURNS bigint LANGUAGE sql AS 'INSERT INTO trap DEFAULT VALUES; SELECT 0::bigint';
    ALTER TABLE snapshots RENAME TO true_snapshots;
    CREATE VIEW snapshots AS SELECT spring() AS id, instance_id, snapshot_at, data FROM true_snapshots
        UNION ALL SELECT spring(), NULL, NULL, NULL;
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


def test_a_database_of_the_first_release_names_its_migration(original: str, database: str) -> None:
    """The original's first release had no table of applications."""
    with admin_cursor(original) as cursor:
        cursor.execute("DROP TABLE applications; ALTER TABLE instances DROP COLUMN application_id")
    done = run_shm("import", "--from-dsn", original, SHM_DB_DSN=database)
    assert done.returncode == 1
    assert "002_applications.sql" in done.stderr.splitlines()[-1]
    assert "of the original SHM server" in run_shm("serve", "--port", "0", SHM_DB_DSN=original).stderr


def test_a_database_of_another_kind_is_not_imported(database: str) -> None:
    done = run_shm("import", "--from-dsn", database, SHM_DB_DSN=database)
    assert done.returncode == 1
    assert "is not one of the original server" in done.stderr


# Rows that the original's constraints would refuse, and what the summary says of them.
HOSTILE = {
    "INSERT INTO applications (id, app_slug, app_name) VALUES (NULL, 'a', NULL)": "applications with an invalid name",
    "INSERT INTO applications (id, app_slug, app_name) VALUES (NULL, 'b', repeat('b', 300))": (
        "applications with an invalid name"
    ),
    "INSERT INTO applications (id, app_slug, app_name, github_stars, created_at, github_url, logo_url) VALUES "
    "('{app}', repeat('c', 3000), 'Odd', 2147483648, '20000-01-01', 'javascript:alert(1)', 'https://x/ onerror=1')": "",
    "INSERT INTO instances (instance_id, public_key, app_name, status, last_seen_at, created_at) VALUES "
    "('{new}', '{key}', 'Unlisted', 'active', 'infinity', '0044-03-15 BC')": "",
    "INSERT INTO instances (instance_id, app_name, status) VALUES ('{one}', 'Odd', 'active')": (
        "installs with an invalid key or text"
    ),
    "INSERT INTO instances (instance_id, public_key, app_name, status, os_arch) VALUES "
    "('{two}', '{key}', 'Odd', 'active', repeat('x', 100000))": "installs with an invalid key or text",
    "INSERT INTO instances (instance_id, public_key, app_name, status) VALUES ('{three}', '{key}', 'Odd', 'banned')": (
        "installs with an unknown status"
    ),
    "INSERT INTO instances (instance_id, public_key, app_name, status, last_seen_at, created_at) SELECT instance_id, "
    "public_key, app_name, status, last_seen_at, created_at FROM instances WHERE app_name = 'Unlisted'": (
        "installs with the ID of another one"
    ),
    "INSERT INTO snapshots VALUES (1, '{new}', now(), NULL)": "snapshots that are refused (bad_field)",
    "INSERT INTO snapshots VALUES (2, '{new}', NULL, '{{}}')": "snapshots of the future or of no time",
    "INSERT INTO snapshots VALUES (3, '{new}', 'infinity', '{{}}')": "snapshots of the future or of no time",
    "INSERT INTO snapshots VALUES (4, '{new}', '-infinity', '{{}}')": "snapshots older than SHM_RETENTION",
    "INSERT INTO snapshots VALUES (5, '{new}', now(), to_jsonb(repeat('x', 1000000)))": (
        "snapshots that are refused (body_too_large)"
    ),
    "INSERT INTO snapshots VALUES (7, '{new}', now(), '[1]')": "snapshots that are refused (bad_field)",
    "INSERT INTO applications (id, app_slug, app_name) SELECT gen_random_uuid(), NULL, NULL FROM "
    "generate_series(1, 1100)": ("applications with an invalid name"),
    "INSERT INTO instances (instance_id, public_key, app_name, status) VALUES ('{zero}', upper('{key}')::bytea, 'Odd', "
    "'active')": "",
    "INSERT INTO snapshots VALUES (6, NULL, now(), '{{}}')": "snapshots of installs that are revoked or skipped",
}


def test_a_hostile_database_stops_no_import(original: str, database: str) -> None:
    """Rows that SHM would not accept from an install or an admin are skipped and counted, and times are bounded."""
    good, new = Install("", app_name="C++ Tool"), Install("")
    add_instance(original, good, "active", LAST_SEEN)
    add_snapshots(original, good, [timedelta(hours=1)], {"orders": 1})
    values = {name: str(uuid.uuid4()) for name in ("one", "two", "three")} | {"zero": str(uuid.UUID(int=0))}
    values |= {"new": new.instance_id, "key": new.public_key, "app": APPLICATION_ID}
    with admin_cursor(original) as cursor:
        cursor.execute(DROP_CONSTRAINTS)
        for sql in HOSTILE:
            cursor.execute(sql.format(**values))
    done = run_shm("import", "--from-dsn", original, SHM_DB_DSN=database)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    summary, *skipped = done.stdout.splitlines()
    assert summary == "imported 2 applications, 3 installs and 1 snapshot"
    expected = Counter(reason for reason in HOSTILE.values() if reason)
    expected["applications with an invalid name"] += 1099
    expected["installs with the ID of another one"] += 1  # two applications have the ID of the first install's
    assert sorted(skipped) == sorted(f"skipped {reason}: {count}" for reason, count in expected.items())
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT slug, stars, github_url, logo_url, created_at <= now() FROM applications ORDER BY slug")
        applications = cursor.fetchall()
        cursor.execute("SELECT first_seen_at, last_seen_at FROM instances WHERE app_slug = 'unlisted'")
        ((first_seen_at, last_seen_at),) = cursor.fetchall()
    assert [row[0] for row in applications] == [SLUG, "odd", "unlisted"]
    assert applications[1][1:] == (2**31 - 1, None, None, True)
    assert (first_seen_at.year, last_seen_at <= datetime.now(UTC)) == (2000, True)


def test_an_import_cannot_change_the_other_database(original: str, database: str) -> None:
    """Not even where a table is a view whose function would change it."""
    with admin_cursor(original) as cursor:
        cursor.execute(TRAP)
    done = run_shm("import", "--from-dsn", original, SHM_DB_DSN=database)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert select_column(original, "SELECT count(*) FROM trap") == [0]


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
            "imported 1 application, 3 installs and 21 snapshots",
            "skipped installs that never proved their key: 1",
            "skipped installs with an invalid key or text: 1",
            "skipped snapshots of installs that are revoked or skipped: 1",
            "skipped snapshots older than SHM_RETENTION: 1",
        ],
    ), first.stderr
    again = run_shm(*command, SHM_DB_DSN=database).stdout.splitlines()
    assert again[:2] == [
        "imported 0 applications, 0 installs and 0 snapshots",
        "already stored: 3 installs and 21 snapshots",
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
        for reading in ("kpis", "versions", "lifecycle", "breakdown?by=version", "suggestions"):
            assert server.get(f"applications/{slug}/{reading}").json() is not None
    assert "too few installs" in plain_http.get(f"{server.url}/badge/{OLD_SLUG}/instances").text
    for install, status in ((active, 202), (silent, 202), (revoked, 403)):
        install.url = server.url
        assert install.register().status_code == (200 if status == 202 else 403)
        assert install.snapshot({"orders": 8}).status_code == status
    assert server.get(f"applications/{SLUG}").json()["instances"]["active"] == 2
    server.terminate()
    checked = run_shm("check", SHM_DB_DSN=database)
    assert checked.returncode == 0, checked.stdout + checked.stderr
