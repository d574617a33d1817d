"""Background jobs: one server of a database runs them, another takes over, and no job blocks the others."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from shm.db.advisory_locks import Lock
from tests.support.background_jobs import expired_pending_install, wait_until_rolled_up
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute, select_column
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

LOCK_HOLDER_SQL = """
    SELECT pid FROM pg_locks
    WHERE
        locktype = 'advisory' AND classid = 0 AND objid = %s AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def lock_holders(database: str) -> list[int]:
    """The backends that hold the lock of the background jobs: at most one."""
    result = select_column(database, LOCK_HOLDER_SQL, Lock.BACKGROUND)
    assert len(result) <= 1
    return result


@pytest.mark.long
def test_another_server_takes_over_the_background_jobs(serve: Callable[..., ServerProcess], database: str) -> None:
    """One of two servers runs the background jobs. When it is killed, the other one takes over."""
    first = serve()
    wait_for(lambda: lock_holders(database) != [], "a holder of the background lock")
    (holder,) = lock_holders(database)
    second = serve()
    Install(second.url).enroll({"orders": 1})
    wait_until_rolled_up(database)
    assert lock_holders(database) == [holder]
    first.kill()
    install = Install(second.url).enroll({"orders": 2})
    wait_until_rolled_up(database)
    assert lock_holders(database) not in ([holder], [])
    first.start()
    assert install.snapshot({"orders": 3}).status_code == 202
    wait_until_rolled_up(database)
    assert len(lock_holders(database)) == 1


def test_background_jobs_continue_after_a_lost_lock_connection(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    for number in range(2):
        wait_for(lambda: lock_holders(database) != [], "a holder of the background lock")
        (holder,) = lock_holders(database)
        execute(database, "SELECT pg_terminate_backend(%s)", holder)
        Install(server.url).enroll({"orders": number})
        wait_for(lambda: holder not in lock_holders(database) != [], "another holder of the lock")  # noqa: B023
        wait_until_rolled_up(database)
    assert "Traceback" not in server.log


def test_a_slow_job_does_not_block_the_others(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_STATEMENT_TIMEOUT="1s")
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.ROLLUP])  # no step of the rollup can finish
        with expired_pending_install(server, database) as purged:
            Install(server.url).enroll({"orders": 1})
            wait_for(lambda: "could not roll up" in server.log, "a log line about the rollup")
            wait_for(purged, "the purge")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.ROLLUP])
    wait_until_rolled_up(database)
    assert "Traceback" not in server.log


def test_unused_distributions_are_deleted(serve: Callable[..., ServerProcess], database: str) -> None:
    for key, ago in (("old", timedelta(days=2)), ("new", timedelta(hours=1))):
        execute(
            database, "INSERT INTO distributions VALUES ('ledger', FALSE, %s, 1, 1, 1, 1, 1, now() - %s, 0)", key, ago
        )
    serve()
    wait_for(
        lambda: select_column(database, "SELECT key FROM distributions") == ["new"],
        "the deletion of the old distribution",
    )
