"""An outage of PostgreSQL: installs get 503 with Retry-After, memory is bounded, and the server recovers by itself."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from shm.core.errors import DatabaseUnavailable
from shm.core.instruments import Instruments
from shm.core.settings import Settings
from shm.core.shared_memory import WorkerSlots
from shm.db.database import Database
from shm.db.embedded.postgres import EmbeddedPostgres
from shm.ingest.batch_writer import BatchWriter
from shm.ingest.enrolment import EnrolmentWriter
from shm.ingest.flattening import Flattened
from shm.ingest.key_cache import PublicKeyCache
from shm.ingest.payloads import Snapshot
from shm.ingest.registry import Registry
from tests.support import plain_http
from tests.support.cluster_template import create_data_dir
from tests.support.clusters import Cluster, cluster_of_servers
from tests.support.databases import make_read_only, make_writable, superuser_cursor
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored
from tests.support.server_process import ServerProcess

KIB = 1024
BODY = 64 * KIB  # SHM_MAX_BODY
SENDERS = 80
QUEUE = 30
BATCH = 10
COPIES = 4  # of a queued body: as received, as stored, its leaves, and its part of the batch
MAX_GROWTH = (QUEUE + BATCH) * COPIES * BODY + SENDERS * BODY  # each sender has at most one more body in flight
TIMEOUT_S = 60
OUTAGE_S = 10
MAX_LOG_LINES = 3  # about thousands of refused requests
LOOP_ITERATIONS = 5  # of the event loop, until all waiting tasks have received the exception


def large_metrics(number: int) -> dict[str, Any]:
    """Metrics whose body is almost as large as the limit."""
    return {"n": number} | {f"text{index}": f"{number} {'x' * 950}" for index in range(60)}


def max_memory(cluster: Cluster, load: Load) -> int:
    """The server's largest resident memory in bytes while the installs send several times as much as may wait in it."""
    server, end, goal = psutil.Process(cluster.servers[0].pid), time.monotonic() + OUTAGE_S, 3 * MAX_GROWTH
    samples, sent = [0], load.bytes_sent

    def is_enough() -> bool:
        samples.append(server.memory_info().rss)
        return time.monotonic() > end and load.bytes_sent > sent + goal

    load.wait_for(is_enough, "more bytes than the limit of memory")
    return max(samples)


@pytest.mark.long
def test_an_outage_under_load_answers_503_with_bounded_memory(postgres_dir: Path) -> None:
    """The server accepts snapshots again once PostgreSQL is back."""
    environment = {"SHM_QUEUE": str(QUEUE), "SHM_BATCH": str(BATCH), "SHM_DB_PATIENCE": "5s"}
    with cluster_of_servers(postgres_dir, 1, **environment) as cluster:
        load = Load(cluster.urls, SENDERS, large_metrics)
        with load.running():
            load.wait_for_more(500)
            refusals_before = Counter(load.refusals)
            cluster.stop_postgres()
            memory_before = max_memory(cluster, load)  # the allocator grows in steps, and fastest at the beginning
            memory = max_memory(cluster, load)
            refused = load.refusals - refusals_before
            acknowledged = len(load.acknowledged)
            cluster.start_postgres()
            load.reset_progress()
            load.wait_for(load.has_progress, "new acknowledged snapshots")
        assert memory <= memory_before + MAX_GROWTH
        assert refused.keys() == {"database_unavailable", "queue_full"}
        assert_acknowledged_stored(load, cluster.servers, cluster.dsn)
        assert len(load.acknowledged) > acknowledged
        assert cluster.servers[0].log.count("the database is unavailable") <= MAX_LOG_LINES
        assert "Traceback" not in cluster.servers[0].log


def test_installs_get_503_with_retry_after_during_an_outage(postgres_dir: Path) -> None:
    with cluster_of_servers(postgres_dir, SHM_DB_PATIENCE="1s") as cluster:
        (server,) = cluster.servers
        install = Install(server.url).enroll()
        cluster.stop_postgres()
        for response in (
            install.snapshot({"a": 1}),
            install.activate(),
            install.register(),
            Install(server.url).activate(),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
            assert int(response.headers["Retry-After"]) > 0
        assert plain_http.get(f"{server.url}/api/v1/ready").status_code == 503
        assert plain_http.get(f"{server.url}/api/v1/healthcheck").status_code == 200
        cluster.start_postgres()
        assert install.snapshot({"a": 2}).status_code == 202
        assert "Traceback" not in server.log


def test_a_read_only_database_is_retried_like_an_absent_one(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_DB_PATIENCE="1s")
    install = Install(server.url).enroll()
    with superuser_cursor(database) as cursor:
        make_read_only(cursor)
        refused = install.snapshot({"n": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert "Retry-After" in refused.headers
        make_writable(cursor)
    deadline = time.monotonic() + TIMEOUT_S
    while install.snapshot({"n": 2}).status_code != 202:
        assert time.monotonic() < deadline, server.log
    assert "Traceback" not in server.log


def test_requests_waiting_for_the_database_fit_the_queue(postgres_dir: Path) -> None:
    with cluster_of_servers(postgres_dir, SHM_QUEUE="5") as cluster, ThreadPoolExecutor(30) as pool:
        installs = [Install(cluster.urls[0]) for _ in range(30)]
        cluster.stop_postgres()
        answers = list(pool.map(Install.register, installs))
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["code"] for answer in answers} == {"database_unavailable", "queue_full"}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)


async def test_requests_queued_behind_a_failed_batch_fail_with_it(postgres_dir: Path) -> None:
    postgres = EmbeddedPostgres(create_data_dir(postgres_dir))
    settings = Settings.load({"SHM_DB_PATIENCE": "1s", "SHM_BATCH": "1"})
    with postgres.running() as dsn:
        async with Database.connect(settings, dsn, 1) as database:
            turn = asyncio.Lock()
            enrolment = EnrolmentWriter(database, settings, turn)
            registry = Registry(database, PublicKeyCache(database, settings), enrolment)
            intake = BatchWriter(database, registry, settings, Instruments(WorkerSlots(1)), turn)
            await asyncio.to_thread(postgres._control, "stop", "-m", "fast")
            waiting = [asyncio.create_task(intake.store(make_snapshot())) for _ in range(20)]
            writer = asyncio.create_task(intake.run())
            try:
                await asyncio.wait(waiting, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
                for _ in range(LOOP_ITERATIONS):
                    await asyncio.sleep(0)
                assert [type(task.exception()) for task in waiting if task.done()] == [DatabaseUnavailable] * len(
                    waiting
                )
            finally:
                for task in (writer, *waiting):
                    task.cancel()
                await asyncio.gather(writer, *waiting, return_exceptions=True)


def make_snapshot() -> Snapshot:
    """A valid snapshot."""
    nothing = msgspec.Raw(b"{}")
    return Snapshot(str(uuid.uuid4()), bytes(32), datetime.now(UTC), Flattened(nothing, None, (), ()), None, None)
