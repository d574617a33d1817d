"""A snapshot without a partition for its time: the server's fault is not told as the client's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.background_jobs import run_background_jobs
from tests.support.databases import execute, select_column
from tests.support.installs import Install
from tests.support.responses import problem
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.cluster

BOUND = "SELECT date_trunc('week', now(), 'UTC')"


def test_a_missing_partition_is_a_fault_of_the_server(serve: Callable[..., ServerProcess], database: str) -> None:
    """Snapshots of other weeks, in the same batch too, are stored; the log names the remedy."""
    with run_background_jobs(database):
        server = serve()
        install = Install(server.url).enroll({"n": 1}, ago=timedelta(days=20))
        (monday,) = select_column(database, BOUND)
        for partition in select_column(
            database, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'snapshots'::regclass"
        ):
            execute(database, f"ALTER TABLE snapshots DETACH PARTITION {partition}")
        execute(database, "CREATE TABLE earlier (LIKE snapshots INCLUDING ALL)")
        execute(database, f"ALTER TABLE snapshots ATTACH PARTITION earlier FOR VALUES FROM (MINVALUE) TO ('{monday}')")
        now = datetime.now(UTC)
        answer = install.snapshot({"n": 2})
        assert problem(answer) == (503, "database_incomplete")
        assert int(answer.headers["Retry-After"]) > 0
        body = install.snapshot_body({"n": 3})
        backlog = b'{"instance_id":"%s","snapshots":[%s]}' % (install.instance_id.encode(), body)
        assert problem(install.post("/v1/snapshots", backlog, install.signed(backlog))) == (503, "database_incomplete")
        installs = [Install(server.url) for _ in range(8)]
        for each in installs:
            assert each.register().status_code == 201
            assert each.activate().status_code == 200
        times = [now, now - timedelta(days=15)] * 4
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda each, at: each.snapshot({"n": 1}, at).status_code, installs, times))
        assert answers == [503, 202] * 4
        line = next(line for line in server.log.splitlines() if "snapshots are not stored" in line)
        assert "no weekly partition exists" in line
        assert "restart of the server creates" in line
        assert "Traceback" not in server.log


def test_a_time_beyond_every_partition_is_refused(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_MAX_CLOCK_SKEW="36500d")
    install = Install(server.url).enroll({"n": 1})
    assert install.snapshot({"n": 1}, datetime.now(UTC) + timedelta(days=365)).status_code == 202
    refused = install.snapshot({"n": 1}, datetime.now(UTC) + timedelta(days=368))
    assert problem(refused) == (400, "timestamp_ahead")
