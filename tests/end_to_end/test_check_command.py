"""`shm check` as its users run it: beside servers, before the first one, and on a database that is not there."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from tests.conftest import admin_cursor
from tests.installs import Install
from tests.server_process import ServerProcess

LIMIT_S = 60
MENDERS_LOCK = 1397247239  # in sql/queries/check.sql


def shm_check(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`shm check` with exactly these arguments."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHM_")}
    return subprocess.run(
        [sys.executable, "-m", "shm.cli", "check", *arguments],
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_the_status_says_whether_there_is_a_difference_and_a_repair_leaves_none(
    server: ServerProcess, database: str
) -> None:
    install = Install(server.url).arrived({"sent": 5}, ago=timedelta(hours=30))
    healthy = shm_check(SHM_DB_DSN=database)
    assert (healthy.returncode, healthy.stdout) == (0, ""), healthy.stderr
    assert "Every figure is what the raw snapshots make it." in healthy.stderr
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE tallies SET total = 2 WHERE key = 'sent'")
        cursor.execute("UPDATE instances SET counted = FALSE")
    spoilt = shm_check("--dsn", database)
    assert spoilt.returncode == 1
    assert f"instances: {install.instance_id[:8]}, counted: is false, should be true" in spoilt.stdout.splitlines()
    assert "tallies: ledger, number, sent: is 2 over 1, counted 5 over 1, should be " in spoilt.stdout
    assert "`shm check --repair` mends them" in spoilt.stderr
    mended = shm_check("--repair", SHM_DB_DSN=database)
    assert mended.returncode == 0, mended.stderr
    assert all(line.startswith("mended ") for line in mended.stdout.splitlines())
    assert server.get("applications/ledger/kpis").json()["kpis"][0]["value"] == 5
    again = shm_check(SHM_DB_DSN=database)
    assert (again.returncode, again.stdout) == (0, "")


def test_before_the_first_server_there_is_nothing_and_no_difference(open_folder: Path) -> None:
    done = shm_check("--repair", "--data-dir", str(open_folder / "data"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_only_one_process_mends_at_a_time(database: str) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MENDERS_LOCK])
        second = shm_check("--repair", SHM_DB_DSN=database)
        assert second.returncode == 1
        assert "Another process is mending" in second.stderr
        assert shm_check(SHM_DB_DSN=database).returncode == 0


def test_a_database_that_is_away_is_said_in_a_sentence() -> None:
    done = shm_check("--dsn", "host=127.0.0.1 port=1", SHM_START_PATIENCE="1s")
    assert (done.returncode, done.stdout) == (1, "")
    assert "could not be reached within 1 s" in done.stderr
    assert "Traceback" not in done.stderr
