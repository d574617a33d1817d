"""The files of an embedded PostgreSQL that are ours to write: its configuration, its socket's folder, its log.

All of it between two lives of the server, while nobody else starts or stops it (`embedded` holds the lock).
"""

import os
import pwd
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 100  # bytes of a unix socket's path; the kernel takes 107
MAX_LOG_BYTES = 1024**2  # bytes; it is for people, who read its end
LOG_ENTRY_START = re.compile(
    rb"^(?=[0-9]{4}-[0-9]{2}-[0-9]{2} )", re.MULTILINE
)  # further lines of an entry begin with a tab
SOCKET_DIR = re.compile(r"^unix_socket_directories = '(.*)'$", re.MULTILINE)

# Terse, and without statements: what an install sent must not come to stand in a log by way of an error. After a crash
# it ends, and `shm serve` starts it again: left to itself, PostgreSQL 18 may wait for ever for a recovery that failed,
# on a full disk for example.
CONFIGURATION = """\
# Written by shm at every start. Settings of your own belong in postgresql.conf, above the line that includes this.
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
    """The folder of a cluster; `owner` is the user that PostgreSQL runs as, None when that is us."""

    def __init__(self, cluster: Path, owner: pwd.struct_passwd | None) -> None:
        self._cluster = cluster
        self._owner = owner

    def chown_to_postgres(self, file: Path | int) -> None:
        """Makes it PostgreSQL's own; a file by its descriptor, because the folder is another user's than ours."""
        if self._owner:
            os.chown(file, self._owner.pw_uid, self._owner.pw_gid)

    def configure(self) -> None:
        """Writes shm.conf, whole or not at all; not if it says so already, because the disk may be full."""
        wanted = CONFIGURATION.format(socket_dir=str(self._socket_dir()).replace("'", "''"))
        if wanted != self._configured():
            self._write("shm.conf", wanted)

    def trim_log(self) -> None:
        """Leaves the newest entries, and no statement: a PANIC writes down its own, whatever is configured."""
        try:
            descriptor = os.open(self._cluster / "log", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # there is none yet, or somebody sends it elsewhere
            return
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            _, *entries = LOG_ENTRY_START.split(file.read())
            kept = b"".join(entry for entry in entries if b"STATEMENT:" not in entry.partition(b"\n")[0])
            if len(kept) < size:  # in place: that needs no room on a full disk
                file.seek(0)
                file.write(kept)
                file.truncate()

    def remove_socket_dir(self) -> None:
        """Removes the folder that `configure` made outside of the cluster, where it did."""
        found = self._configured_socket_dir()
        if found is not None and found != self._cluster and self._is_private(found):
            shutil.rmtree(found, ignore_errors=True)

    def _configured_socket_dir(self) -> Path | None:
        found = SOCKET_DIR.search(self._configured())
        return Path(found[1].replace("''", "'")) if found else None

    def _configured(self) -> str:
        try:
            return (self._cluster / "shm.conf").read_text()
        except FileNotFoundError:
            return ""

    def _socket_dir(self) -> Path:
        """The cluster's own folder, which nobody else may enter; a short private one where its path is too long.

        That is the same one at each start, if it can be: servers that run while it is revived know no other.
        """
        if len(os.fsencode(self._cluster / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES:
            return self._cluster
        known = self._configured_socket_dir()
        if known is not None and self._is_private(known):
            return known
        private = Path(tempfile.mkdtemp(prefix="shm-", dir="/tmp"))  # mode 0700, and short
        self.chown_to_postgres(private)
        return private

    def _is_private(self, folder: Path) -> bool:
        """Whether it is PostgreSQL's alone; one that is gone is made again. In /tmp somebody may have been faster."""
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                self.chown_to_postgres(folder)
            found = folder.lstat()
        except OSError:
            return False
        owner = self._owner.pw_uid if self._owner else os.geteuid()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not stat.S_IMODE(found.st_mode) & 0o077

    def _write(self, name: str, content: str) -> None:
        """Whole or not at all."""
        fresh = self._cluster / f"{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            self.chown_to_postgres(descriptor)
        fresh.rename(self._cluster / name)
