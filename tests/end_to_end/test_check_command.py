"""`shm check`: while servers run, before the first start, and without a database."""

from datetime import timedelta
from pathlib import Path

from shm.db.advisory_locks import Lock
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.shm_command import run_shm


def test_exit_status_reports_differences_and_repair_clears_them(server: ServerProcess, database: str) -> None:
    install = Install(server.url).enroll({"sent": 5}, ago=timedelta(hours=30))
    healthy = run_shm("check", SHM_DB_DSN=database)
    assert (healthy.returncode, healthy.stdout) == (0, ""), healthy.stderr
    assert [line.partition(": ")[0] for line in healthy.stderr.splitlines()[:-1]] == [
        f"{number} of 9" for number in range(1, 10)
    ]
    assert healthy.stderr.endswith(
        "No differences: counts, KPIs, charts, spreads and first versions agree with the raw snapshots.\n"
    )
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE tallies SET total = 2 WHERE key = 'sent'")
        cursor.execute("UPDATE instances SET counted = FALSE")
    damaged = run_shm("check", "--dsn", database)
    assert damaged.returncode == 1
    assert f"instances: {install.instance_id[:8]}, counted: is false, should be true" in damaged.stdout.splitlines()
    assert "tallies: ledger, number, sent: is 2 over 1, counted 5 over 1, should be " in damaged.stdout
    assert "`shm check --repair` corrects them" in damaged.stderr
    repaired = run_shm("check", "--repair", SHM_DB_DSN=database)
    assert repaired.returncode == 0, repaired.stderr
    assert all(line.startswith("repaired ") for line in repaired.stdout.splitlines())
    assert server.get("applications/ledger/kpis").json()["kpis"][0]["value"] == 5
    again = run_shm("check", SHM_DB_DSN=database)
    assert (again.returncode, again.stdout) == (0, "")


def test_an_empty_data_directory_has_no_difference(postgres_dir: Path) -> None:
    done = run_shm("check", "--repair", "--data-dir", str(postgres_dir / "data"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_only_one_process_repairs_at_a_time(database: str) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.REPAIR])
        second = run_shm("check", "--repair", SHM_DB_DSN=database)
        assert second.returncode == 1
        assert "Another process is repairing" in second.stderr
        assert run_shm("check", SHM_DB_DSN=database).returncode == 0


def test_an_unreachable_database_is_reported_in_a_sentence() -> None:
    done = run_shm("check", "--dsn", "host=127.0.0.1 port=1", SHM_START_PATIENCE="1s")
    assert (done.returncode, done.stdout) == (1, "")
    assert "could not be reached within 1 s" in done.stderr
    assert "Traceback" not in done.stderr
