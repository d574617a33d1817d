"""The servers that are measured: `shm serve` with its embedded PostgreSQL, and the one that reads nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2

from bench.driver import Fault
from bench.machine import cpu_seconds
from shm.embedded import EmbeddedPostgres
from shm.settings import sources
from tests.support.server_process import ServerProcess, free_port

CHECKOUT = Path(__file__).parent.parent
LIMIT_S = 30
SETTLED_S = 0.3  # what wrk left in flight when its time was up is stored by then, or the count still moves
UNLIMITED = {
    "SHM_RATELIMIT_ENABLED": "false",  # one address sends for the whole fleet, and far too often
    "SHM_FEED_SUBSCRIBERS": "3000",  # more than any bench has
    "SHM_FEED_SUBSCRIBERS_PER_TOKEN": "3000",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class Served:
    """`shm serve` as a process that runs, and its database."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.url = server.url
        self.port = server.port
        self.pid = server.pid
        self.token = server.admin_token
        self.dsn = EmbeddedPostgres(server.data_dir).dsn()
        self.postmaster = postmaster_of(server.data_dir)
        for name, wanted in DURABLE.items():
            if (found := self.ask(f"SHOW {name}")) != wanted:
                raise Fault(f"PostgreSQL runs with {name} {found}, wanted is {wanted}: its commits are not durable.")

    def ask(self, sql: str) -> str:
        """The first column of the first row."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                (value,) = cursor.fetchone() or ("",)
                return str(value)
        finally:
            connection.close()

    def stored(self) -> int:
        """How many snapshots the database holds, once it takes in no more."""
        before = -1
        deadline = time.monotonic() + LIMIT_S
        while (now := int(self.ask("SELECT count(*) FROM snapshots"))) != before:
            if time.monotonic() > deadline:
                raise Fault(f"The server still stored snapshots {LIMIT_S} s after the last one was sent.")
            before = now
            time.sleep(SETTLED_S)
        return now

    def cpu_seconds(self) -> tuple[float, float]:
        """Processor time so far: of the server's processes, and of PostgreSQL's."""
        return cpu_seconds(self._server.pid), cpu_seconds(self.postmaster)


def postmaster_of(data_dir: Path) -> int:
    """The first process of the embedded PostgreSQL that runs there."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


@contextmanager
def served(data_dir: Path, workers: int) -> Iterator[Served]:
    """`shm serve` on `data_dir`, told to end with the context."""
    server = ServerProcess(data_dir, environment(workers))
    status: int | None = None
    try:
        server.start()
        yield Served(server)
    finally:
        status = server.terminate()
    if status != 0:
        raise Fault(f"The server ended with the status {status}:\n{server.log}")


def environment(workers: int) -> dict[str, str]:
    """The settings that differ from the defaults, for the report too."""
    wanted = {"SHM_WORKERS": str(workers)} if workers > 1 else {}
    known = {name for source in sources().values() for name in source.names}
    return wanted | {name: value for name, value in UNLIMITED.items() if name in known}


@dataclass(frozen=True, slots=True)
class Unread:
    """The Tornado that reads nothing, in some processes on one port."""

    url: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return sum(cpu_seconds(pid) for pid in self.pids)


@contextmanager
def unread(processes: int) -> Iterator[Unread]:
    """`bench.unread` in so many processes, ended with the context."""
    port = free_port()
    with ExitStack() as stack:
        pids = tuple(stack.enter_context(_process("bench.unread", str(port))) for _ in range(processes))
        deadline = time.monotonic() + LIMIT_S
        while not all(_listens(pid, port) for pid in pids):
            if time.monotonic() > deadline:
                raise Fault(f"bench.unread does not listen after {LIMIT_S} s.")
            time.sleep(0.05)
        yield Unread(f"http://127.0.0.1:{port}", pids)


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=CHECKOUT, stdin=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _listens(pid: int, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in psutil.Process(pid).net_connections("tcp")
    )
