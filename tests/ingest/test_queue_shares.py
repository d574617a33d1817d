"""Limits on the share of the queue that one install can use."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx

from shm.ingest.batch_writer import MAX_NEW_KEYS_BATCH_LEAVES
from tests.support.databases import admin_cursor, waiting_statements
from tests.support.installs import Install
from tests.support.prometheus_scrape import sample_deltas, sample_value, scrape
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import ago, backlog

TIMEOUT_S = 60


def test_one_install_cannot_fill_the_whole_queue(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_QUEUE="300", SHM_MAX_BACKLOG="100")
    flooding, other = Install(server.url).enroll({"n": 0}), Install(server.url).enroll({"n": 0})
    start = time.time()

    def send(index: int) -> httpx.Response:
        timestamps = [
            datetime.fromtimestamp(start - 60 - index * 100 - number, UTC).isoformat() for number in range(100)
        ]
        return backlog(flooding, [{"timestamp": each, "metrics": {"n": 1}} for each in timestamps])

    with admin_cursor(database) as cursor, ThreadPoolExecutor(12) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")  # no snapshot is written until ROLLBACK
        sent = [pool.submit(send, index) for index in range(10)]
        replays = [pool.submit(send, 0), pool.submit(send, 0)]
        _wait_until(lambda: sum(each.done() for each in sent) >= 8)  # backlogs beyond its share are refused at once
        waiting = pool.submit(other.snapshot, {"n": 1})
        time.sleep(0.2)
        assert not waiting.done()
        cursor.execute("ROLLBACK")
        assert waiting.result().status_code == 202
        statuses = [each.result().status_code for each in [*sent, *replays]]
        assert statuses.count(202) >= 2
        assert set(statuses) == {202, 429}


def test_known_keys_do_not_wait_for_new_ones_of_the_same_batch(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    server = serve()
    installs = [Install(server.url).enroll({"n": 0}) for _ in range(3)]
    with (
        admin_cursor(database) as no_snapshots,
        admin_cursor(database) as no_keys,
        ThreadPoolExecutor(3) as pool,
    ):
        no_snapshots.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")
        no_keys.execute("BEGIN; LOCK TABLE aggregated_keys IN SHARE MODE")  # keys can be read, and none be added
        first = pool.submit(installs[0].snapshot, {"n": 1})
        _wait_until(lambda: any("intake." in each for each in waiting_statements(database)))
        new = pool.submit(installs[1].snapshot, {"n": 1, "invented": 1})
        known = pool.submit(installs[2].snapshot, {"n": 1})
        _wait_until(lambda: sample_value(scrape(server), "shm_intake_queue_snapshots", worker="0") == 2)
        no_snapshots.execute("ROLLBACK")
        assert [first.result().status_code, known.result().status_code] == [202, 202]
        assert not new.done()
        no_keys.execute("ROLLBACK")
        assert new.result().status_code == 202


def test_other_writes_take_turns_between_batches_with_new_keys(server: ServerProcess) -> None:
    """Eight snapshots of the maximum size take as many statements as the limit of leaves requires, and not one."""
    install = Install(server.url).enroll({"n": 0})
    members = [{"timestamp": ago(each), "metrics": {f"k{each}_{key}": 1 for key in range(256)}} for each in range(8)]
    with sample_deltas(server) as deltas:
        assert backlog(install, members).status_code == 202
    assert deltas.by("shm_intake_batch_commit_seconds_count") >= 1 + 8 * 256 / (MAX_NEW_KEYS_BATCH_LEAVES + 256)
    assert MAX_NEW_KEYS_BATCH_LEAVES < 1_000, "milliseconds for each hundred leaves under the writers' lock"


def test_a_batch_has_few_snapshots_with_long_texts(serve: Callable[..., ServerProcess]) -> None:
    """They have no leaves, and their statement takes long all the same."""
    server = serve(SHM_MAX_BACKLOG_BODY="8m")
    install = Install(server.url).enroll({"n": 0})
    texts = {f"text{number}": "x" * 1_000 for number in range(255)}
    members = [{"timestamp": ago(each), "metrics": {"n": 1, **texts}} for each in range(8)]
    with sample_deltas(server) as deltas:
        assert {each["status"] for each in backlog(install, members).json()["snapshots"]} == {"stored"}
    assert deltas.by("shm_intake_batch_commit_seconds_count") > 1


def test_a_backlog_confirms_the_key_of_a_pending_install_once(server: ServerProcess) -> None:
    install = Install(server.url)
    assert install.register().status_code == 201
    before = int(server.get("instances").headers["X-Feed-Cursor"])
    response = backlog(install, [{"timestamp": ago(minutes), "metrics": {}} for minutes in range(50)])
    assert [member["status"] for member in response.json()["snapshots"]] == ["stored"] * 50
    assert int(server.get("instances").headers["X-Feed-Cursor"]) < before + 20


def test_the_rate_limit_applies_to_an_unapproved_install(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_ACTIVATION="manual")
    install = Install(server.url)
    assert install.register().status_code == 201
    statuses = [problem(install.snapshot({"n": number})) for number in range(7)]
    assert statuses == [(403, "not_approved")] * 5 + [(429, "rate_limited")] * 2


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
