"""What one install may take of the server, whoever else wants something of it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx

from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import ServerProcess
from tests.support.signed_actions import ago, backlog

LIMIT_S = 20


def test_one_install_cannot_take_the_whole_queue(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_QUEUE="300", SHM_MAX_BACKLOG="100")
    greedy, honest = Install(server.url).enroll({"n": 0}), Install(server.url).enroll({"n": 0})
    start = time.time()

    def send(place: int) -> httpx.Response:
        at = [datetime.fromtimestamp(start - 60 - place * 100 - number, UTC).isoformat() for number in range(100)]
        return backlog(greedy, [{"timestamp": each, "metrics": {"n": 1}} for each in at])

    with admin_cursor(database) as cursor, ThreadPoolExecutor(12) as pool:
        cursor.execute("BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE")  # nothing is written until ROLLBACK
        sent = [pool.submit(send, place) for place in range(10)]
        replays = [pool.submit(send, 0), pool.submit(send, 0)]
        deadline = time.monotonic() + LIMIT_S
        while sum(each.done() for each in sent) < 8:  # those beyond its share are told at once
            assert time.monotonic() < deadline
            time.sleep(0.02)
        waiting = pool.submit(honest.snapshot, {"n": 1})
        time.sleep(0.2)
        assert not waiting.done()
        cursor.execute("ROLLBACK")
        assert waiting.result().status_code == 202
        answers = [each.result().status_code for each in [*sent, *replays]]
        assert answers.count(202) >= 2
        assert set(answers) == {202, 429}


def test_a_backlog_proves_a_pending_install_once(server: ServerProcess) -> None:
    install = Install(server.url)
    assert install.register().status_code == 201
    before = int(server.get("instances").headers["X-Feed-Cursor"])
    answer = backlog(install, [{"timestamp": ago(minutes), "metrics": {}} for minutes in range(50)])
    assert [member["status"] for member in answer.json()["snapshots"]] == ["stored"] * 50
    assert int(server.get("instances").headers["X-Feed-Cursor"]) < before + 20


def test_an_install_that_waits_for_approval_has_a_budget_too(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_RATELIMIT_ENABLED="true", SHM_ACTIVATION="manual")
    install = Install(server.url)
    assert install.register().status_code == 201
    answers = [problem(install.snapshot({"n": number})) for number in range(7)]
    assert answers == [(403, "not_approved")] * 5 + [(429, "rate_limited")] * 2
