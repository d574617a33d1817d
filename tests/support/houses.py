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

LIMIT_S = 60


@dataclass
class House:
    """One PostgreSQL and all servers on it. `revives`: the server itself starts its PostgreSQL again."""

    postgres: EmbeddedPostgres
    cluster: Path
    servers: list[ServerProcess]
    revives: bool

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
        process = psutil.Process(self.postmaster())
        process.send_signal(number)
        process.wait(LIMIT_S)

    def stop_postgres(self) -> None:
        """An orderly end."""
        self.postgres._control("stop", "-m", "fast")

    def start_postgres(self) -> None:
        """Starts PostgreSQL again, unless that is a server's work."""
        if not self.revives:
            wait_for(self._revived, "PostgreSQL, started again")

    def is_ready(self) -> bool:
        """Whether all servers reach the database."""
        return all(server.is_ready() for server in self.servers)

    def _revived(self) -> bool:
        try:
            return self.postgres.restart_if_dead()
        except ConfigurationError:  # processes of the one that was killed are still there
            return False

    def postmaster(self) -> int:
        """Its process, which postmaster.pid names once it has one."""
        pids: list[int] = []

        def found() -> bool:
            with suppress(OSError, ValueError, IndexError):
                pids.append(int((self.cluster / "postmaster.pid").read_text().splitlines()[0]))
            return bool(pids) and psutil.pid_exists(pids[-1])

        wait_for(found, "PostgreSQL's first process")
        return pids[-1]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds."""
    deadline = time.monotonic() + LIMIT_S
    pause = 0.02
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)  # most conditions ask the database, on a connection of their own


@contextmanager
def house_with_embedded_postgres(folder: Path, log: Path | None = None, **environment: str) -> Iterator[House]:
    """One `shm serve` that brings up, and revives, a PostgreSQL of its own in `folder`."""
    server = ServerProcess(folder / "data", environment)
    server.log_file = log or server.log_file
    server.start()
    try:
        yield House(EmbeddedPostgres(server.data_dir), server.data_dir / "postgres", [server], revives=True)
    finally:
        server.terminate()


@contextmanager
def house_with_servers(folder: Path, count: int = 1, **environment: str) -> Iterator[House]:
    """`count` servers on one PostgreSQL that none of them looks after."""
    postgres = EmbeddedPostgres(folder / "database")
    with postgres.running() as dsn:
        servers = [
            ServerProcess(folder / f"server{number}", {"SHM_DB_DSN": dsn, **environment}) for number in range(count)
        ]
        try:
            for server in servers:
                server.start()
            yield House(postgres, folder / "database" / "postgres", servers, revives=False)
        finally:
            for server in servers:
                server.terminate()
