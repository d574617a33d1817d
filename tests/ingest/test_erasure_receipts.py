"""The receipt of an erasure counts all that was deleted, and every request for one erasure gets the same one."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shm.core.errors import Forbidden
from shm.core.settings import Settings
from shm.db.advisory_locks import Lock
from shm.ingest.erasure import MAX_LEAVES, Eraser, ErasureReceipt
from shm.ingest.key_cache import PublicKeyCache
from tests.support.background_jobs import BackgroundJobs, run_background_jobs
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor, execute, select_column, waiting_statements
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import act, action, backlog

pytestmark = pytest.mark.cluster

SNAPSHOTS, LEAVES = 30, 200
assert SNAPSHOTS * LEAVES > 2 * MAX_LEAVES  # so there are several pages

BLOCKED = 4_711  # an advisory lock, which each page after the first one waits for
BLOCK_LATER_PAGES = f"""
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock({BLOCKED});
        RETURN new;
    END $$;
    CREATE TRIGGER waiting BEFORE UPDATE OF snapshots ON erasure_receipts
        FOR EACH ROW WHEN (old.snapshots > 0) EXECUTE FUNCTION wait();
"""


@pytest.fixture
def background(database: str) -> Iterator[BackgroundJobs]:
    """Keeps servers from running their jobs, so it must be requested before them."""
    with run_background_jobs(database) as jobs:
        yield jobs


@pytest.fixture
def servers(background: BackgroundJobs, serve: Callable[..., ServerProcess]) -> tuple[ServerProcess, ServerProcess]:
    """Two servers on one database, without background jobs."""
    return serve(), serve()


def send_history(install: Install) -> list[datetime]:
    """Enrolls an install with a history of several pages, and returns its times, oldest first."""
    install.register()
    install.activate()
    now = datetime.now(UTC)
    times = [now - timedelta(hours=hours) for hours in range(SNAPSHOTS, 0, -1)]
    for part in (times[::2], times[1::2]):
        metrics = {f"key{number}": number for number in range(LEAVES)}
        members = [{"timestamp": at.isoformat(), "metrics": metrics} for at in part]
        assert {each["status"] for each in backlog(install, members).json()["snapshots"]} == {"stored"}
    return times


def test_a_receipt_counts_what_was_deleted_before_a_crash(
    background: BackgroundJobs, servers: tuple[ServerProcess, ServerProcess], database: str
) -> None:
    """The server is killed in the middle of an erasure, and another one gets the repeated request."""
    first, second = servers
    install = Install(first.url)
    times = send_history(install)
    background.run("roll up")
    execute(database, BLOCK_LATER_PAGES)
    body = action(install, "erase")
    with admin_cursor(database) as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("SELECT pg_advisory_lock(%s)", [BLOCKED])
        erasing = threads.submit(install.post, "/v1/erase", body, install.signed(body))
        wait_for(lambda: bool(waiting_statements(database)), "the second page")
        first.kill()
        assert erasing.exception() is not None
        deleted = SNAPSHOTS - select_column(database, "SELECT count(*) FROM snapshots")[0]
        assert 0 < deleted < SNAPSHOTS
    install.url = second.url
    receipt = install.post("/v1/erase", body, install.signed(body)).json()
    assert receipt["snapshots"] == SNAPSHOTS
    span = [datetime.fromisoformat(receipt[name]) for name in ("oldest_snapshot_at", "newest_snapshot_at")]
    assert span == [times[0], times[-1]]
    assert background.differences() == {}


def test_two_servers_that_erase_an_install_at_once_send_one_receipt(
    background: BackgroundJobs, servers: tuple[ServerProcess, ServerProcess], database: str
) -> None:
    install = Install(servers[0].url)
    send_history(install)
    background.run("roll up")
    twins = [install, Install(servers[1].url)]
    twins[1].instance_id, twins[1].key = install.instance_id, install.key
    with admin_cursor(database) as cursor, ThreadPoolExecutor(2) as threads:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.ROLLUP])  # no page can be deleted
        erasing = [threads.submit(act, twin, "erase") for twin in twins]
        wait_for(lambda: len(waiting_statements(database)) == len(twins), "both erasures")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.ROLLUP])
        receipts = [each.result().json() for each in erasing]
    assert receipts[0] == receipts[1]
    assert receipts[0]["snapshots"] == SNAPSHOTS
    assert problem(act(install, "erase")) == (403, "unknown_instance")


def test_a_request_that_another_server_overtook_gets_the_receipt(
    background: BackgroundJobs, server: ServerProcess
) -> None:
    """Its signature was verified before the other server deleted the install, which has not registered again."""
    install, stranger, signed_at = Install(server.url).enroll({"n": 1}), Install(server.url), datetime.now(UTC)
    receipt = act(install, "erase").json()
    settings = Settings()
    eraser = Eraser(background.database, PublicKeyCache(background.database, settings), settings)

    def erase(key: str) -> ErasureReceipt:
        return background.runner.run(eraser.erase(install.instance_id, bytes.fromhex(key), signed_at))

    assert msgspec.json.decode(msgspec.json.encode(erase(install.public_key))) == receipt
    with pytest.raises(Forbidden):
        erase(stranger.public_key)
    assert install.register_signed().status_code == 201
    with pytest.raises(Forbidden):
        erase(install.public_key)
    assert install.snapshot({"n": 2}).status_code == 202
    assert act(install, "erase").json()["snapshots"] == 1  # and not those of the erasure before


def test_a_request_that_is_ahead_is_not_carried_out_again_after_a_crash(
    background: BackgroundJobs, server: ServerProcess, database: str
) -> None:
    """The background job completes the erasure, and refuses requests up to the time that the install has signed."""
    install = Install(server.url).enroll({"n": 1})
    ahead = datetime.now(UTC) + timedelta(minutes=4)
    settings = Settings()
    background.runner.run(
        background.database.execute(
            "erasure.begin",
            instance_id=install.instance_id,
            public_key=bytes.fromhex(install.public_key),
            signed_at=ahead,
        )
    )
    execute(database, "UPDATE instances SET erasing_since = erasing_since - interval '61 s'")
    background.run("complete interrupted deletions")
    assert install.register_signed(ahead + timedelta(seconds=10)).status_code == 201
    assert install.activate(ahead + timedelta(seconds=20)).status_code == 200
    assert problem(act(install, "erase", ahead)) == (403, "unknown_instance")
    eraser = Eraser(background.database, PublicKeyCache(background.database, settings), settings)
    assert select_column(database, "SELECT count(*) FROM erasure_receipts") == [1]
    execute(database, "UPDATE erasure_receipts SET erased_at = erased_at - interval '6 minutes'")
    assert background.runner.run(eraser.delete_old_receipts()) is False
    assert select_column(database, "SELECT count(*) FROM erasure_receipts") == [0]
