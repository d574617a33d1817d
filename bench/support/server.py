"""The server under test: `shm serve` as a process, with its embedded PostgreSQL or on the database of a DSN."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg2

from bench.support.errors import InvalidRun
from bench.support.machine import cpu_seconds
from bench.support.processes import free_port, python_process, wait_until
from shm.auth.token_file import TOKEN_FILE
from shm.core.instruments import BATCH_COMMIT
from shm.db.embedded.postgres import EmbeddedPostgres

SETTLE_TIMEOUT_S = 30
ROLL_UP_TIMEOUT_S = 900
SETTLE_INTERVAL_S = 0.3  # requests in flight when wrk stops are stored by then, or the count still changes
UNLIMITED = {
    "SHM_RATELIMIT_ENABLED": "false",  # one address sends for the whole fleet, faster than any limit
    "SHM_FEED_SUBSCRIBERS": "3000",  # more than any bench has
    "SHM_FEED_SUBSCRIBERS_PER_TOKEN": "3000",
    "SHM_MAX_CONNECTIONS_PER_ADDRESS": "10000",  # all clients of a bench have one address
}
METRICS_TIMEOUT_S = 30
STORING_PROCESSES = """
SELECT coalesce(string_agg(pid::text, ','), '') FROM pg_stat_activity
WHERE query LIKE '%EXECUTE "intake.store%' AND pid <> pg_backend_pid()"""
DURABILITY_SETTINGS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class RunningServer:
    """A server that is ready, and its database."""

    def __init__(self, data_dir: Path, port: int, pid: int, dsn: str = "") -> None:
        self.port = port
        self.pid = pid
        self.url = f"http://127.0.0.1:{port}"
        self.token = (data_dir / TOKEN_FILE).read_text().strip()
        self.dsn = dsn or EmbeddedPostgres(data_dir).dsn()
        self._postmaster = None if dsn else postmaster_pid(data_dir)
        for name, required in DURABILITY_SETTINGS.items():
            if (value := self.fetch_value(f"SHOW {name}")) != required:
                raise InvalidRun(f"PostgreSQL has {name} = {value}; commits are durable only with {required}.")

    def fetch_value(self, sql: str) -> str:
        """The first column of the first row."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                (value,) = cursor.fetchone() or ("",)
                return str(value)
        finally:
            connection.close()

    def count_snapshots(self) -> int:
        """Snapshots in the database, once their number no longer changes."""
        previous = -1
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (count := int(self.fetch_value("SELECT count(*) FROM snapshots"))) != previous:
            if time.monotonic() > deadline:
                raise InvalidRun(f"The server still stored snapshots {SETTLE_TIMEOUT_S} s after the last one was sent.")
            previous = count
            time.sleep(SETTLE_INTERVAL_S)
        return count

    def wait_until_rolled_up(self) -> None:
        """Waits until all snapshots are in the series. Raises InvalidRun if that takes too long."""
        deadline = time.monotonic() + ROLL_UP_TIMEOUT_S
        behind = "SELECT count(*) FROM snapshots WHERE cursor > (SELECT cursor FROM series_head)"
        while self.fetch_value(behind) != "0":
            if time.monotonic() > deadline:
                raise InvalidRun(f"The series were not complete within {ROLL_UP_TIMEOUT_S} s.")
            time.sleep(0.5)

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time so far: of the server's processes, and of the embedded PostgreSQL's."""
        return cpu_seconds(self.pid), 0.0 if self._postmaster is None else cpu_seconds(self._postmaster)

    def storing_processes(self) -> list[int]:
        """The processes of the embedded PostgreSQL whose last statement stored snapshots: one for each worker."""
        if self._postmaster is None:
            return []
        listed = self.fetch_value(STORING_PROCESSES)
        return [int(pid) for pid in listed.split(",") if pid]

    def batch_times(self) -> tuple[int, float]:
        """The number of batches of snapshots so far, and the seconds from the beginning of each write to its COMMIT."""
        headers = {"Authorization": f"Bearer {self.token}"}
        text = httpx.get(f"{self.url}/metrics", headers=headers, timeout=METRICS_TIMEOUT_S).raise_for_status().text
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(BATCH_COMMIT.name))
        return int(float(samples[f"{BATCH_COMMIT.name}_count"])), float(samples[f"{BATCH_COMMIT.name}_sum"])

    @property
    def postmaster(self) -> int:
        """The main process of the embedded PostgreSQL."""
        assert self._postmaster is not None, "the processes of another PostgreSQL are not known"
        return self._postmaster


def postmaster_pid(data_dir: Path) -> int:
    """The main process of the embedded PostgreSQL that runs in `data_dir`."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


@contextmanager
def run_server(
    data_dir: Path, workers: int, dsn: str = "", more_settings: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """`shm serve` on `data_dir`, ended with the context. Raises InvalidRun unless it starts and ends cleanly.

    Its database is the embedded PostgreSQL, or that of `dsn`. `more_settings` replace those of all benches.
    """
    port, log_file = free_port(), data_dir.with_suffix(".log")
    environment = settings(workers) | ({"SHM_DB_DSN": dsn} if dsn else {}) | dict(more_settings or {})
    arguments = ("serve", "--port", str(port), "--data-dir", str(data_dir))
    try:
        with python_process("shm.cli", *arguments, environment=environment, log_file=log_file) as process:
            wait_until(lambda: _is_ready(port), process, "The server")
            yield RunningServer(data_dir, port, process.pid, dsn)
    except InvalidRun as error:
        raise InvalidRun(f"{error}\n{log_file.read_text()}") from error
    if process.returncode != 0:
        raise InvalidRun(f"The server ended with status {process.returncode}:\n{log_file.read_text()}")


def settings(workers: int) -> dict[str, str]:
    """The settings that differ from the defaults, also for the report."""
    return ({"SHM_WORKERS": str(workers)} if workers > 1 else {}) | UNLIMITED


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/v1/ready", timeout=5).is_success
    except httpx.TransportError:
        return False
