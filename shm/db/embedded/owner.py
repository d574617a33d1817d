"""The system user that runs the embedded PostgreSQL, and that user's access to directories.

PostgreSQL refuses to run as root. For root it runs as the system user `shm-postgres`, which is created on first use.
"""

import logging
import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from shm.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

POSTGRES_USER = "shm-postgres"


def postgres_owner(data_dir: Path, cluster: Path) -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as when this process runs as root; None otherwise.

    The owner of the cluster or of the data directory, so that the user's own server still starts afterwards. Where
    there is none but root, the system user `shm-postgres`, created if missing.
    """
    if os.geteuid() != 0:
        return None
    for directory in (cluster, data_dir):
        with suppress(FileNotFoundError, NotADirectoryError, KeyError):
            uid = directory.stat().st_uid
            if uid != 0:
                return pwd.getpwuid(uid)
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    try:
        subprocess.run([*command, POSTGRES_USER], check=True, capture_output=True, start_new_session=True)
    except (OSError, subprocess.CalledProcessError):
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and useradd could not create the system user {POSTGRES_USER}. "
            "Run shm as an ordinary user, or set SHM_DB_DSN."
        ) from None
    return pwd.getpwnam(POSTGRES_USER)


def check_has_name() -> None:
    """Raises ConfigurationError if this process runs as a user ID without a name, for which initdb does not work."""
    uid = os.geteuid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(
            f"An embedded PostgreSQL cannot be created by the user ID {uid}, which has no entry in /etc/passwd. Add "
            f"one (`useradd --uid {uid} shm`), run shm as a user that has one, or set SHM_DB_DSN."
        ) from None


def check_access(cluster: Path) -> None:
    """Raises ConfigurationError if this process cannot use an existing cluster. Root uses it as its owner."""
    try:
        uid = cluster.stat().st_uid
    except FileNotFoundError:
        return
    if os.geteuid() not in (0, uid):
        raise ConfigurationError(f"{cluster} belongs to the user {_user_name(uid)}. Run shm as that user.")
    if not os.access(cluster, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{cluster} is not writable. Correct that (`chmod u+rwx {cluster}`, or a mount that is not read-only), or "
            "use another SHM_DATA_DIR."
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def make_traversable(path: Path) -> None:
    """As root: allows other users to traverse (not list) `path` and the directories above it."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            logger.info("allowing the user %s to traverse %s", POSTGRES_USER, directory)
            directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def make_readable(tree: Path, owner: pwd.struct_passwd) -> None:
    """As root: allows other users to read PostgreSQL's programs, which a strict umask may have prevented."""
    for directory, _, files in os.walk(tree):
        if Path(directory).stat().st_uid == owner.pw_uid:
            continue
        for path in (Path(directory), *(Path(directory) / name for name in files)):
            mode = path.stat().st_mode
            readable_mode = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if mode != readable_mode:
                path.chmod(stat.S_IMODE(readable_mode))
