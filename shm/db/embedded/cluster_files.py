"""The files of an embedded PostgreSQL that SHM writes: its configuration, its socket's directory, its log.

All methods are called while the server does not run and `EmbeddedPostgres` holds the lock of its data directory.
"""

import os
import pwd
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from shm.db.embedded.small_files import read_small_file

MAX_SOCKET_PATH_BYTES = 100  # the kernel's limit for a Unix socket is 107
MAX_LOG_BYTES = 1024**2  # people read the end of the log
LOG_ENTRY_START = re.compile(rb"^(?=[0-9]{4}-[0-9]{2}-[0-9]{2} )", re.MULTILINE)  # other lines begin with a tab
PRIVATE_DIR = re.compile(r"/tmp/shm-[a-z0-9_]+")  # noqa: S108 - compared, not created
SOCKET_DIR = re.compile(r"^unix_socket_directories = '(.*)'$", re.MULTILINE)

# Errors are logged tersely and without statements, which may contain data that an install sent. After a crash the
# server exits and `shm serve` starts it again, because PostgreSQL 18 may wait forever for a recovery that failed, for
# example on a full disk.
CONFIGURATION = """\
# Written by shm at every start. Put your own settings into postgresql.conf, above the line that includes this file.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
log_error_verbosity = terse
log_min_error_statement = panic
log_checkpoints = off
log_timezone = 'UTC'
timezone = 'UTC'
restart_after_crash = off
"""


class ClusterFiles:
    """The directory of a cluster. `owner` is the user that PostgreSQL runs as; None if that is this process's user."""

    def __init__(self, cluster: Path, owner: pwd.struct_passwd | None) -> None:
        self._cluster = cluster
        self._owner = owner

    def chown_to_postgres(self, file: Path | int) -> None:
        """Makes PostgreSQL's user the owner. A file is passed by its descriptor: that user may replace its path."""
        if self._owner:
            os.chown(file, self._owner.pw_uid, self._owner.pw_gid)

    def configure(self) -> None:
        """Writes shm.conf atomically, unless it is up to date: the disk may be full."""
        configuration = CONFIGURATION.format(socket_dir=str(self._socket_dir()).replace("'", "''"))
        if configuration != self._current_configuration():
            self._write("shm.conf", configuration)

    def trim_log(self) -> None:
        """Removes old entries, and entries with a statement: a PANIC logs its statement despite the configuration."""
        try:
            descriptor = os.open(self._cluster / "log", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # there is no log yet, or it is redirected
            return
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe, to which PostgreSQL would wait to write
            os.close(descriptor)
            (self._cluster / "log").unlink()
            return
        with os.fdopen(descriptor, "r+b") as file:
            if os.fstat(descriptor).st_nlink != 1:  # a link to another file
                return
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            _, *entries = LOG_ENTRY_START.split(file.read())
            kept = b"".join(entry for entry in entries if b"STATEMENT:" not in entry.partition(b"\n")[0])
            if len(kept) < size:  # in place, which needs no space on a full disk
                file.seek(0)
                file.write(kept)
                file.truncate()

    def private_socket_dir(self) -> Path | None:
        """The socket's directory if `configure` created it outside of the cluster."""
        directory = self._current_socket_dir()
        is_private = directory is not None and PRIVATE_DIR.fullmatch(str(directory)) and directory.is_dir()
        return directory if is_private else None

    def include_configuration(self, cluster: Path) -> None:
        """Adds shm.conf to the postgresql.conf of a new cluster."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW  # PostgreSQL's user can replace the file by a link
        with os.fdopen(os.open(cluster / "postgresql.conf", flags), "a") as configuration:
            if os.fstat(configuration.fileno()).st_nlink == 1:
                configuration.write("\ninclude_if_exists = 'shm.conf'\n")

    def _current_socket_dir(self) -> Path | None:
        match = SOCKET_DIR.search(self._current_configuration())
        return Path(match[1].replace("''", "'")) if match else None

    def _current_configuration(self) -> str:
        try:
            return read_small_file(self._cluster / "shm.conf").decode(errors="replace")
        except OSError:  # it does not exist, or is no file; it is replaced then
            return ""

    def _socket_dir(self) -> Path:
        """The cluster's directory, which no other user may enter; a short private one in /tmp if its path is too long.

        A restart keeps the directory if possible, because running servers reconnect to the same socket. A copy of a
        data directory with a shorter path names the directory of the original, which is not kept.
        """
        if len(os.fsencode(self._cluster / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES:
            return self._cluster
        current = self._current_socket_dir()
        if current is not None and PRIVATE_DIR.fullmatch(str(current)) and self._is_private(current):
            return current
        private = Path(tempfile.mkdtemp(prefix="shm-", dir="/tmp"))  # mode 0700, and short
        self.chown_to_postgres(private)
        return private

    def _is_private(self, directory: Path) -> bool:
        """Whether only PostgreSQL's user can access it. A missing one is created again.

        In /tmp another user may have created a directory of that name.
        """
        try:
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
                self.chown_to_postgres(directory)
            status = directory.lstat()
        except OSError:
            return False
        owner = self._owner.pw_uid if self._owner else os.geteuid()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not stat.S_IMODE(status.st_mode) & 0o077

    def _write(self, name: str, content: str) -> None:
        """Replaces a file atomically."""
        new_file = self._cluster / f"{name}.new"
        new_file.unlink(missing_ok=True)
        descriptor = os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            self.chown_to_postgres(descriptor)
        new_file.rename(self._cluster / name)
