"""Servers with their PostgreSQL, each of which a test can kill."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from shm.core.errors import ConfigurationError
from shm.db.embedded.postgres import EmbeddedPostgres
from tests.support.cluster_template import create_data_dir
from tests.support.server_process import ServerProcess

WAIT_TIMEOUT_S = 60


@dataclass
class Cluster:
    """One PostgreSQL and all servers on it. `restarts_postgres`: a server restarts its embedded PostgreSQL itself."""

    postgres: EmbeddedPostgres
    postgres_dir: Path
    servers: list[ServerProcess]
    restarts_postgres: bool

    @property
    def dsn(self) -> str:
        """The DSN of the database, available while PostgreSQL runs."""
        return self.postgres.dsn()

    @property
    def urls(self) -> list[str]:
        """The base URLs of all servers."""
        return [server.url for server in self.servers]

    def kill_postgres(self, number: signal.Signals) -> None:
        """SIGQUIT: PostgreSQL's immediate shutdown. SIGKILL: ends the postmaster; its children then exit."""
        process = psutil.Process(self.postmaster_pid())
        process.send_signal(number)
        process.wait(WAIT_TIMEOUT_S)

    def stop_postgres(self) -> None:
        """Stops PostgreSQL with its fast shutdown."""
        self.postgres._control("stop", "-m", "fast")

    def start_postgres(self) -> None:
        """Starts PostgreSQL, unless a server does so itself."""
        if not self.restarts_postgres:
            wait_for(self._restarted, "PostgreSQL, started again")

    def is_ready(self) -> bool:
        """Whether all servers are ready."""
        return all(server.is_ready() for server in self.servers)

    def _restarted(self) -> bool:
        try:
            return self.postgres.restart_if_dead()
        except ConfigurationError:  # processes of the killed PostgreSQL still run
            return False

    def postmaster_pid(self) -> int:
        """The PID of the postmaster, read from postmaster.pid once that has it."""
        pids: list[int] = []

        def has_pid() -> bool:
            with suppress(OSError, ValueError, IndexError):
                pids.append(int((self.postgres_dir / "postmaster.pid").read_text().splitlines()[0]))
            return bool(pids) and psutil.pid_exists(pids[-1])

        wait_for(has_pid, "the PID of the postmaster")
        return pids[-1]


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> None:
    """Returns once `condition` is true; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = 0.02
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)  # most conditions open a database connection


@contextmanager
def embedded_cluster(folder: Path, log: Path | None = None, **environment: str) -> Iterator[Cluster]:
    """One `shm serve` with an embedded PostgreSQL in `folder`, which it restarts."""
    server = ServerProcess(create_data_dir(folder / "data"), environment)
    server.log_file = log or server.log_file
    server.start()
    try:
        yield Cluster(EmbeddedPostgres(server.data_dir), server.data_dir / "postgres", [server], restarts_postgres=True)
    finally:
        server.terminate()


@contextmanager
def cluster_of_servers(folder: Path, count: int = 1, **environment: str) -> Iterator[Cluster]:
    """`count` servers on one PostgreSQL that no server manages."""
    postgres = EmbeddedPostgres(create_data_dir(folder / "database"))
    with postgres.running() as dsn:
        servers = [
            ServerProcess(folder / f"server{number}", {"SHM_DB_DSN": dsn, **environment}) for number in range(count)
        ]
        try:
            for server in servers:
                server.start()
            yield Cluster(postgres, folder / "database" / "postgres", servers, restarts_postgres=False)
        finally:
            for server in servers:
                server.terminate()
