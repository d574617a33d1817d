"""`GET /metrics`: exact counts over all workers, and no data of a request."""

import asyncio
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

import shm
from shm.core.instruments import METRICS
from shm.db.advisory_locks import Lock
from shm.server.fleet_metrics import FLEET_METRICS
from shm.server.gauge_sampler import MEASURE_INTERVAL_S
from tests.support import plain_http
from tests.support.background_jobs import run_background_jobs
from tests.support.databases import admin_cursor
from tests.support.installs import Install
from tests.support.prometheus_scrape import SampleDeltas, parse_samples, sample_deltas, sample_value, scrape
from tests.support.raw_http import RawConnection
from tests.support.server_process import ServerProcess
from tests.support.subscriber import subscribe

OPERATING_GUIDE = Path(__file__).parent.parent.parent / "docs" / "operating.md"
TIMEOUT_S = 60
# The values of all labels come from the code.
LABELS = {"handler", "status", "code", "le", "worker", "pool", "state", "version"}

PUBLIC_METRICS = {"SHM_METRICS_PUBLIC": "true"}


def wait_for(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Waits until the condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


def test_requests_are_counted_by_handler_and_status_and_timed(server: ServerProcess) -> None:
    with sample_deltas(server) as deltas:
        installs = [Install(server.url).enroll() for _ in range(3)]
        installs[0].register()
        server.get("instances")
        server.get(f"instances/{installs[0].instance_id}")
        plain_http.get(f"{server.url}/api/v1/admin/stats")
        plain_http.get(f"{server.url}/nowhere/at/all")
        plain_http.get(f"{server.url}/v1/snapshot")
    for handler, status, count in [
        ("register", 201, 3),
        ("register", 200, 1),
        ("activate", 200, 3),
        ("snapshot", 202, 3),
        ("snapshot", 405, 1),
        ("Instances", 200, 1),
        ("Instance", 200, 1),
        ("Stats", 401, 1),
        ("NotFoundHandler", 404, 1),
        ("PrometheusMetrics", 200, 1),
    ]:
        assert deltas.by("shm_requests_total", handler=handler, status=str(status)) == count, handler
    for handler, count in [("register", 4), ("snapshot", 4), ("Instances", 1), ("NotFoundHandler", 1)]:
        assert deltas.by("shm_request_duration_seconds_count", handler=handler) == count
        assert deltas.by("shm_request_duration_seconds_bucket", handler=handler, le="+Inf") == count
        assert deltas.by("shm_request_duration_seconds_sum", handler=handler) > 0


def test_a_streamed_disclosure_counts_once(server: ServerProcess) -> None:
    install = Install(server.url).enroll()
    now = install.snapshot_body({})
    timestamp = re.search(rb'"timestamp": "([^"]+)"', now)
    assert timestamp is not None
    body = (
        f'{{"action":"disclose","instance_id":"{install.instance_id}","timestamp":"{timestamp[1].decode()}"}}'.encode()
    )
    with sample_deltas(server) as deltas:
        assert install.post("/v1/disclose", body, install.signed(body)).status_code == 200
    assert deltas.by("shm_requests_total", handler="disclose", status="200") == 1
    assert deltas.by("shm_request_duration_seconds_count", handler="disclose") == 1


def test_refusals_are_counted_by_code(server: ServerProcess) -> None:
    install = Install(server.url).enroll()
    attacker = Install(server.url, instance_id=install.instance_id)
    with sample_deltas(server) as deltas:
        for _ in range(2):
            assert attacker.snapshot({}).json()["code"] == "bad_signature"
        assert install.post("/v1/snapshot", b"x" * 70_000).json()["code"] == "body_too_large"
        plain_http.get(f"{server.url}/api/v1/admin/stats", headers={"Authorization": "Bearer wrong"})
        plain_http.get(f"{server.url}/api/v1/admin/instances?sort=nothing", headers=server.headers)
        with RawConnection(server.port) as raw:
            raw.send(b"no http at all\r\n\r\n")
            answer = raw.answer()
            assert answer is not None
            assert answer.verdict == (400, "bad_http")
        headers_too_large = plain_http.get(f"{server.url}/", headers={"X": "x" * 20_000})
        assert headers_too_large.status_code == 431
    for code, count in [
        ("bad_signature", 2),
        ("body_too_large", 1),
        ("bad_token", 1),
        ("bad_parameter", 1),
        ("bad_http", 1),
        ("headers_too_large", 1),
    ]:
        assert deltas.by("shm_refusals_total", code=code) == count, code
    assert deltas.by("shm_requests_total", handler="snapshot", status="403") == 2
    assert deltas.by("shm_requests_total", handler="snapshot", status="413") == 1
    assert deltas.by("shm_requests_total", handler="http", status="400") == 1
    assert deltas.by("shm_requests_total", handler="http", status="431") == 1


def test_refused_members_of_a_backlog_are_counted_by_code(server: ServerProcess) -> None:
    install = Install(server.url).enroll()
    timestamp = re.search(rb'"timestamp": "([^"]+)"', install.snapshot_body({}))
    assert timestamp is not None
    members = [
        f'{{"timestamp":"{when}","metrics":{{}}}}' for when in (timestamp[1].decode(), "2001-01-01T00:00:00Z", "soon")
    ]
    body = f'{{"instance_id":"{install.instance_id}","snapshots":[{",".join(members)}]}}'.encode()
    with sample_deltas(server) as deltas:
        response = install.post("/v1/snapshots", body, install.signed(body))
    codes = [member["code"] for member in response.json()["snapshots"] if member["status"] == "refused"]
    assert len(codes) == 2
    for code in codes:
        assert deltas.by("shm_refusals_total", code=code) == 1
    assert deltas.by("shm_requests_total", handler="backlog", status="202") == 1


async def test_metrics_include_batch_sizes_and_the_queue(server: ServerProcess, database: str) -> None:
    installs = [await asyncio.to_thread(Install(server.url).enroll, {"n": 0}) for _ in range(4)]
    before = await asyncio.to_thread(scrape, server)
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [Lock.WRITERS])
        depth = ("shm_intake_queue_snapshots", frozenset({("worker", "0")}))
        writing = {"pool": "writer", "state": "used", "worker": "0"}
        samples = before
        sending: list[asyncio.Task[httpx.Response]] = []
        for start, queued in ((slice(1), 0), (slice(1, None), len(installs) - 1)):  # one is written, the others wait
            sending += [asyncio.create_task(asyncio.to_thread(each.snapshot, {"n": 1})) for each in installs[start]]
            deadline = time.monotonic() + TIMEOUT_S
            while (sample_value(samples, "shm_database_connections", **writing), samples[depth]) != (1, queued):
                assert time.monotonic() < deadline, "the queue did not reach the expected length"
                samples = await asyncio.to_thread(scrape, server)
        cursor.execute("SELECT pg_advisory_unlock(%s)", [Lock.WRITERS])
        assert [(await each).status_code for each in sending] == [202] * len(installs)
    deltas = SampleDeltas(before)
    deltas.after = await asyncio.to_thread(scrape, server)
    assert deltas.by("shm_intake_batch_snapshots_sum") == len(installs)
    batches = deltas.by("shm_intake_batch_snapshots_count")
    assert 2 <= batches <= len(installs)
    assert deltas.by("shm_intake_batch_wait_seconds_count") == batches
    assert deltas.by("shm_intake_batch_commit_seconds_count") == batches
    assert deltas.by("shm_intake_batch_commit_seconds_sum") > 0
    assert deltas.after[depth] == 0
    assert sample_value(deltas.after, "shm_database_connections", pool="writer", state="free", worker="0") == 1


def test_metrics_include_waiting_statements(serve: Callable[..., ServerProcess], database: str) -> None:
    server = serve(SHM_DB_POOL="1", **PUBLIC_METRICS)
    head = f"GET /api/v1/admin/stats HTTP/1.1\r\nHost: x\r\nAuthorization: {server.headers['Authorization']}\r\n\r\n"

    def pool_usage() -> tuple[float, float]:
        now = scrape(server)
        used = sample_value(now, "shm_database_connections", pool="readers", state="used", worker="0")
        return used, sample_value(now, "shm_database_statements_waiting", pool="readers", worker="0")

    with admin_cursor(database) as cursor, ExitStack() as stack:
        cursor.execute("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        connections = [stack.enter_context(RawConnection(server.port)) for _ in range(3)]
        for each in connections:
            each.send(head.encode())
        wait_for(lambda: pool_usage()[0] == 1 and pool_usage()[1] >= 2)  # background jobs may wait too
        cursor.execute("ROLLBACK")
        for each in connections:
            answer = each.answer()
            assert answer is not None
            assert answer.status == 200
    wait_for(lambda: pool_usage() == (0, 0))


@pytest.fixture
def server_without_jobs(serve: Callable[..., ServerProcess], database: str) -> Iterator[ServerProcess]:
    """A server that runs no background jobs, some of which hold the writers' lock while they change removals."""
    with run_background_jobs(database):
        yield serve()


async def test_metrics_include_subscribers_and_their_lag(server_without_jobs: ServerProcess, database: str) -> None:
    server = server_without_jobs
    install = await asyncio.to_thread(Install(server.url).enroll, {"n": 0})

    async def feed_gauges() -> tuple[float, float, float]:
        now = await asyncio.to_thread(scrape, server)
        names = ("shm_feed_subscribers", "shm_feed_slowest_lag_seconds", "shm_feed_median_lag_seconds")
        subscribers, slowest, median = (sample_value(now, name, worker="0") for name in names)
        return subscribers, slowest, median

    async def until(condition: Callable[[tuple[float, float, float]], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(now := await feed_gauges()):
            assert time.monotonic() < deadline, now

    assert await feed_gauges() == (0, 0, 0)
    async with subscribe(server) as first:
        await first.until("hello")
        await until(lambda now: now == (1, 0, 0))
        async with subscribe(server) as second:
            await second.until("hello")
            await until(lambda now: now == (2, 0, 0))
            with admin_cursor(database) as cursor:  # changes cannot be read, so none can be sent
                cursor.execute("BEGIN; LOCK TABLE removals IN ACCESS EXCLUSIVE MODE")
                assert (await asyncio.to_thread(install.snapshot, {"n": 1})).status_code == 202
                await until(lambda now: now[0] == 2 and now[1] >= now[2] > 1)
                cursor.execute("ROLLBACK")
            await until(lambda now: now == (2, 0, 0))
        await until(lambda now: now == (1, 0, 0))
    await until(lambda now: now == (0, 0, 0))
    assert (
        sample_value(await asyncio.to_thread(scrape, server), "shm_requests_total", handler="Feed", status="101") == 2
    )


def test_metrics_include_the_database_size_loop_lag_and_version(server: ServerProcess, database: str) -> None:
    with admin_cursor(database) as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        (size,) = cursor.fetchone() or (0,)
    wait_for(lambda: sample_value(scrape(server), "shm_database_size_bytes") > size / 2)
    now = scrape(server)
    assert sample_value(now, "shm_database_size_bytes") < size * 2
    assert sample_value(now, "shm_build_info", version=shm.__version__) == 1
    wait_for(lambda: sample_value(scrape(server), "shm_event_loop_lag_seconds_count") > 1)


def test_metrics_include_the_lag_of_the_charts(serve: Callable[..., ServerProcess], database: str) -> None:
    with run_background_jobs(database) as background:
        server = serve()
        Install(server.url).enroll({"n": 1})
        wait_for(lambda: sample_value(scrape(server), "shm_series_lag_seconds") > 0, 2 * MEASURE_INTERVAL_S)
        background.run("roll up")
        wait_for(lambda: sample_value(scrape(server), "shm_series_lag_seconds") == 0, 2 * MEASURE_INTERVAL_S)


def test_metrics_include_installs_by_status_files_and_disk(server: ServerProcess, database: str) -> None:
    installs = [Install(server.url).enroll() for _ in range(4)]
    Install(server.url).register()
    revocation = f"{server.url}/api/v1/admin/instances/{installs[0].instance_id}/revoke"
    plain_http.post(revocation, headers=server.headers).raise_for_status()
    with admin_cursor(database) as cursor:  # a day longer than the active window
        cursor.execute(
            "UPDATE instances SET last_seen_at = now() - interval '31 days', refresh_at = now() WHERE instance_id = %s",
            [installs[1].instance_id],
        )
    expected = {"active": 2, "lost": 1, "pending": 0, "revoked": 1, "unproven": 1}

    def counted() -> dict[str, float]:
        now = scrape(server)
        return {status: sample_value(now, "shm_installs", status=status) for status in expected}

    wait_for(lambda: counted() == expected)
    now = scrape(server)
    free = shutil.disk_usage(server.data_dir).free
    assert free / 2 < sample_value(now, "shm_disk_free_bytes") < free * 2
    files, limit = (sample_value(now, f"shm_open_files{suffix}", worker="0") for suffix in ("", "_limit"))
    assert 5 < files < limit
    assert limit == psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)[0]


def test_the_age_of_a_background_round_grows_while_none_ends(
    serve: Callable[..., ServerProcess], database: str
) -> None:
    name = "shm_background_round_age_seconds"
    with admin_cursor(database) as cursor:
        cursor.execute("UPDATE background_rounds SET finished_at = now() - interval '1 hour'")
    with run_background_jobs(database) as background:
        server = serve()
        wait_for(lambda: sample_value(scrape(server), name) > 3_500)
        background.run("record a completed round")
        wait_for(lambda: 0 < sample_value(scrape(server), name) < 3_500)


def test_metrics_require_a_token(shared_server: ServerProcess) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        response = plain_http.get(f"{shared_server.url}/metrics", headers=headers)
        assert (response.status_code, response.headers["Content-Type"]) == (401, "application/problem+json")
    assert plain_http.get(f"{shared_server.url}/metrics?name=x", headers=shared_server.headers).status_code == 400


def test_metrics_are_public_with_shm_metrics_public(serve: Callable[..., ServerProcess]) -> None:
    server = serve(**PUBLIC_METRICS)
    assert "shm_build_info" in plain_http.get(f"{server.url}/metrics").text
    assert plain_http.get(f"{server.url}/api/v1/admin/stats").status_code == 401


def test_metrics_contain_no_data_of_a_request(server: ServerProcess) -> None:
    install = Install(server.url, app_name="Zqxapp", environment="zqxenv").enroll({"zqxkey": 1})
    request_data = [
        *(install.instance_id, install.public_key, server.admin_token),
        "127.0.0",
        "zqx",
        "Zqx",
        "testclient",
    ]
    plain_http.get(f"{server.url}/zqxpath", headers={"User-Agent": "zqxagent", "X-Forwarded-For": "zqx"})
    plain_http.get(f"{server.url}/api/v1/admin/applications/zqxapp", headers=server.headers)
    plain_http.get(f"{server.url}/api/v1/admin/instances/{install.instance_id}", headers=server.headers)
    plain_http.get(f"{server.url}/api/v1/admin/stats", headers={"Authorization": "Bearer zqxtoken"})
    plain_http.request("ZQX", f"{server.url}/api/v1/admin/stats", headers=server.headers)
    text = plain_http.get(f"{server.url}/metrics", headers=server.headers).text
    for text_of_request in request_data:
        assert text_of_request not in text
    assert {label for _, labels in parse_samples(text) for label, _ in labels} == LABELS


def test_every_metric_is_documented() -> None:
    table = OPERATING_GUIDE.read_text().partition("## Monitoring")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    suffix = {"counter": "_total", "histogram": "", "gauge": ""}
    exported = {f"{metric.name}{suffix[metric.kind]}" for metric in (*METRICS, *FLEET_METRICS)}
    assert documented == exported | {"shm_build_info"}
