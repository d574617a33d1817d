"""Several worker processes form one server: they share its port and its database, and a dead one is replaced."""

import asyncio
import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.cluster_template import create_data_dir
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.load import Load, assert_acknowledged_stored, stored_snapshots
from tests.support.prometheus_scrape import Samples, parse_samples, sample_value
from tests.support.server_process import DEFAULT_ENVIRONMENT, ServerProcess
from tests.support.shm_command import postgres_of, start_serve
from tests.support.subscriber import subscribe

TIMEOUT_S = 60
MAX_ATTEMPTS = 60  # one of two workers accepts each connection, at random
LOADERS = 6
SNAPSHOTS = 100  # acknowledged before the kill, and after it
WORKERS = 2


@pytest.fixture
def pair(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server of two workers, both of which listen."""
    server = serve(SHM_WORKERS=f"{WORKERS}")
    wait_until(lambda: "open the console" in server.log, server)
    return server


@pytest.fixture
def embedded(postgres_dir: Path) -> Iterator[ServerProcess]:
    """The same with an embedded PostgreSQL."""
    server = ServerProcess(create_data_dir(postgres_dir), {"SHM_WORKERS": f"{WORKERS}"}, executed=True)
    server.start()
    wait_until(lambda: "open the console" in server.log, server)
    yield server
    server.terminate()
    server.log_file.unlink()


def wait_until(condition: Callable[[], bool], server: ServerProcess) -> None:
    """Returns once `condition` is true; fails with the server's log."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    """The worker processes."""
    found = []
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "python" in child.name():
                found.append(child)
    return found


def listens(process: psutil.Process, port: int) -> bool:
    """Whether a process listens on that port."""
    try:
        sockets = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


def all_listen(server: ServerProcess) -> bool:
    """Whether there are two workers, and both listen."""
    return [listens(worker, server.port) for worker in workers_of(server)] == [True] * WORKERS


def connected_to(server: ServerProcess, worker: psutil.Process) -> http.client.HTTPConnection:
    """A connection that this worker has accepted."""
    for _ in range(MAX_ATTEMPTS):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        connection.request("GET", "/api/v1/ready")
        assert connection.getresponse().read()
        client_address = connection.sock.getsockname()
        if any(each.raddr == client_address for each in worker.net_connections("tcp")):
            return connection
        connection.close()
    raise AssertionError(f"none of {MAX_ATTEMPTS} connections reached worker {worker.pid}")


def send(connection: http.client.HTTPConnection, install: Install, metrics: object) -> int:
    """Sends a snapshot on this connection; returns the status of the response."""
    body = install.snapshot_body(metrics)
    connection.request("POST", "/v1/snapshot", body, install.signed(body))
    response = connection.getresponse()
    response.read()
    return response.status


def test_every_worker_answers_and_all_share_one_database(pair: ServerProcess) -> None:
    install = Install(pair.url).enroll({"n": 0})
    first, second = workers_of(pair)
    for number, worker in enumerate((first, second, first), 1):
        connection = connected_to(pair, worker)
        assert send(connection, install, {"n": number}) == 202
        connection.close()
        assert pair.get("instances").json()[0]["metrics"] == {"n": number}
    assert pair.log.count("open the console") == 1


async def test_a_subscriber_receives_the_snapshots_of_other_workers(pair: ServerProcess) -> None:
    install = await asyncio.to_thread(Install(pair.url).enroll, {"n": 0})
    async with subscribe(pair) as subscriber:
        await subscriber.until("hello")
        for number, worker in enumerate(workers_of(pair), 1):
            connection = await asyncio.to_thread(connected_to, pair, worker)
            assert await asyncio.to_thread(send, connection, install, {"n": number}) == 202
            connection.close()
            while (await subscriber.until("instance"))["instance"]["metrics"] != {"n": number}:
                pass


def test_every_202_survives_kill_9_of_a_worker_under_load(pair: ServerProcess, database: str) -> None:
    """The parent replaces the worker."""
    load = Load([pair.url], LOADERS)
    victim, other = workers_of(pair)

    with load.running():
        load.wait_for_more(SNAPSHOTS)
        victim.kill()
        wait_until(lambda: victim.pid not in {each.pid for each in workers_of(pair)} and all_listen(pair), pair)
        load.wait_for_more(SNAPSHOTS)
    assert load.refusals.total() == 0
    assert other.is_running()
    assert_acknowledged_stored(load, [pair], database)


def test_kill_9_of_the_parent_leaves_no_worker(embedded: ServerProcess) -> None:
    """The next start works."""
    install = Install(embedded.url).enroll({"n": 1})
    workers = workers_of(embedded)
    assert len(workers) == WORKERS
    embedded.kill_parent_only()
    _, alive = psutil.wait_procs(workers, TIMEOUT_S)
    assert alive == []
    embedded.start()
    assert install.snapshot({"n": 2}).status_code == 202
    assert embedded.get("instances").json()[0]["metrics"] == {"n": 2}
    assert embedded.terminate() == 0
    assert postgres_of(embedded.data_dir) == []


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGHUP))],
)
def test_a_signal_to_the_parent_drains_every_worker(
    serve: Callable[..., ServerProcess], database: str, number: signal.Signals
) -> None:
    server = serve(SHM_WORKERS=f"{WORKERS}")
    wait_until(lambda: "open the console" in server.log, server)
    load = Load([server.url], LOADERS)
    workers = workers_of(server)

    with load.running():
        load.wait_for_more(SNAPSHOTS)
        assert server.terminate(number) == 0
    assert not any(worker.is_running() for worker in workers)
    assert load.faults == []
    found = {(instance_id, at) for instance_id, at, _ in stored_snapshots(database)}
    assert found.issuperset(load.acknowledged)
    assert server.log.count("waiting for the requests in flight") == WORKERS
    assert "Traceback" not in server.log


def test_a_worker_that_does_not_end_within_the_drain_is_killed(serve: Callable[..., ServerProcess]) -> None:
    server = serve(SHM_WORKERS=f"{WORKERS}", SHM_DRAIN_TIMEOUT="1s")
    wait_until(lambda: "open the console" in server.log, server)
    workers = workers_of(server)
    workers[0].suspend()
    assert server.terminate() == 0
    assert not any(worker.is_running() for worker in workers)
    assert "1 workers did not end in time" in server.log


@pytest.mark.long
def test_the_parent_restarts_an_embedded_postgres_that_died(embedded: ServerProcess) -> None:
    install = Install(embedded.url).enroll({"n": 1})
    os.kill(int((embedded.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    wait_until(lambda: "was started again" in embedded.log, embedded)
    wait_until(lambda: install.snapshot({"n": 2}).status_code == 202, embedded)
    assert embedded.terminate() == 0
    assert postgres_of(embedded.data_dir) == []


def test_repeated_worker_deaths_stop_the_server(pair: ServerProcess) -> None:
    """The server logs the reason and exits with status 1."""
    deadline = time.monotonic() + TIMEOUT_S
    while pair.is_running:
        assert time.monotonic() < deadline, pair.log
        with suppress(psutil.NoSuchProcess):  # of the parent or a worker
            for worker in workers_of(pair):
                worker.kill()
        time.sleep(0.02)
    assert pair.terminate() == 1
    assert "consecutive workers ended" in pair.log


def test_more_connections_than_postgres_allows_are_refused() -> None:
    """The start fails with one sentence that names the limit."""
    process = start_serve("--workers", "20")
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "20 workers with 9 connections each need 180 connections; PostgreSQL allows 90" in output


def test_a_port_shared_by_another_servers_workers_is_taken(pair: ServerProcess, database: str) -> None:
    process = start_serve("--workers", "2", "--port", str(pair.port), SHM_DB_DSN=database, SHM_ADMIN_TOKEN="x" * 30)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "Cannot listen on" in output


def test_workers_agree_on_a_port_that_the_system_chose(database: str) -> None:
    process = start_serve("--workers", "2", "--port", "0", SHM_DB_DSN=database, SHM_ADMIN_TOKEN="x" * 30)
    assert process.stdout is not None
    output = ""
    while "open the console" not in output:
        output += process.stdout.readline()
    port = int(output.partition("listening on http://127.0.0.1:")[2].split()[0])
    children = psutil.Process(process.pid).children()
    assert [listens(child, port) for child in children] == [True, True]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0


def test_workers_open_no_more_connections_than_documented(pair: ServerProcess, database: str) -> None:
    """Each worker has the pool of readers, and one connection each for the writer, the feed and the background jobs."""
    with admin_cursor(database) as cursor:

        def connections() -> int:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shm' AND datname = current_database()"
            )
            (count,) = cursor.fetchone() or (0,)
            return int(count)

        wait_until(lambda: connections() == WORKERS * (int(DEFAULT_ENVIRONMENT["SHM_DB_POOL"]) + 1 + 1 + 1), pair)


def scrape_worker(server: ServerProcess, worker: psutil.Process) -> Samples:
    """The samples that this worker returns."""
    connection = connected_to(server, worker)
    connection.request("GET", "/metrics", headers=server.headers)
    text = connection.getresponse().read().decode()
    connection.close()
    return parse_samples(text)


def acknowledged_snapshots(samples: Samples) -> float:
    """The number of acknowledged snapshots."""
    return sample_value(samples, "shm_requests_total", handler="snapshot", status="202")


def test_each_worker_returns_the_metrics_of_all_workers(pair: ServerProcess) -> None:
    install = Install(pair.url).enroll({"n": 0})
    workers = workers_of(pair)
    for number, worker in enumerate((*workers, workers[0]), 1):
        connection = connected_to(pair, worker)
        assert send(connection, install, {"n": number}) == 202
        connection.close()
    for worker in workers:
        samples = scrape_worker(pair, worker)
        assert acknowledged_snapshots(samples) == sample_value(samples, "shm_intake_batch_snapshots_sum") == 4
        queues = [dict(labels) for name, labels in samples if name == "shm_intake_queue_snapshots"]
        assert queues == [{"worker": f"{number}"} for number in range(WORKERS)]
    wait_until(lambda: ("shm_database_size_bytes", frozenset()) in scrape_worker(pair, workers[1]), pair)


def test_the_counts_of_a_worker_survive_its_kill_9(pair: ServerProcess) -> None:
    install = Install(pair.url).enroll({"n": 0})
    victim, other = workers_of(pair)
    for number in range(1, 4):
        connection = connected_to(pair, victim)
        assert send(connection, install, {"n": number}) == 202
        connection.close()
    victim.kill()
    wait_until(lambda: victim.pid not in {each.pid for each in workers_of(pair)} and all_listen(pair), pair)
    (replacement,) = [each for each in workers_of(pair) if each.pid != other.pid]
    connection = connected_to(pair, replacement)
    assert send(connection, install, {"n": 9}) == 202
    connection.close()
    for worker in (replacement, other):
        assert acknowledged_snapshots(scrape_worker(pair, worker)) == 5
