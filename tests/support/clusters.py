"""Servers and the PostgreSQL below them, to be killed: each by a signal to its exact process."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from shm.core.errors import ConfigurationError
from shm.db.embedded import EmbeddedPostgres
from tests.support.server_process import ServerProcess

WAIT_TIMEOUT_S = 60


@dataclass
class Cluster:
    """One PostgreSQL and all servers on it. `restarts_postgres`: the server itself starts its PostgreSQL again."""

    postgres: EmbeddedPostgres
    postgres_dir: Path
    servers: list[ServerProcess]
    restarts_postgres: bool

    @property
    def dsn(self) -> str:
        """The database; only while PostgreSQL runs."""
        return self.postgres.dsn()

    @property
    def urls(self) -> list[str]:
        """Of all servers."""
        return [server.url for server in self.servers]

    def kill_postgres(self, number: signal.Signals) -> None:
        """SIGQUIT: PostgreSQL's immediate shutdown. SIGKILL: its first process alone, the others notice."""
        process = psutil.Process(self.postmaster_pid())
        process.send_signal(number)
        process.wait(WAIT_TIMEOUT_S)

    def stop_postgres(self) -> None:
        """An orderly end."""
        self.postgres._control("stop", "-m", "fast")

    def start_postgres(self) -> None:
        """Starts PostgreSQL again, unless that is a server's work."""
        if not self.restarts_postgres:
            wait_for(self._restarted, "PostgreSQL, started again")

    def is_ready(self) -> bool:
        """Whether all servers reach the database."""
        return all(server.is_ready() for server in self.servers)

    def _restarted(self) -> bool:
        try:
            return self.postgres.restart_if_dead()
        except ConfigurationError:  # processes of the one that was killed are still there
            return False

    def postmaster_pid(self) -> int:
        """Its process, which postmaster.pid names once it has one."""
        pids: list[int] = []

        def has_pid() -> bool:
            with suppress(OSError, ValueError, IndexError):
                pids.append(int((self.postgres_dir / "postmaster.pid").read_text().splitlines()[0]))
            return bool(pids) and psutil.pid_exists(pids[-1])

        wait_for(has_pid, "PostgreSQL's first process")
        return pids[-1]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds."""
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    pause = 0.02
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)  # most conditions ask the database, on a connection of their own


@contextmanager
def embedded_cluster(folder: Path, log: Path | None = None, **environment: str) -> Iterator[Cluster]:
    """One `shm serve` that brings up, and revives, a PostgreSQL of its own in `folder`."""
    server = ServerProcess(folder / "data", environment)
    server.log_file = log or server.log_file
    server.start()
    try:
        yield Cluster(EmbeddedPostgres(server.data_dir), server.data_dir / "postgres", [server], restarts_postgres=True)
    finally:
        server.terminate()


@contextmanager
def cluster_of_servers(folder: Path, count: int = 1, **environment: str) -> Iterator[Cluster]:
    """`count` servers on one PostgreSQL that none of them looks after."""
    postgres = EmbeddedPostgres(folder / "database")
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
