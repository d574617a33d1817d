"""The directory that all processes of one install share: who sends, when, and what each has counted.

It is beside the identity. Where nothing can be written there, a directory for temporary files takes its place, so that
several processes are one reporter even then.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shm_sdk import forking
from shm_sdk.choice import read_choice
from shm_sdk.configuration import Configuration
from shm_sdk.digests import hash_hex
from shm_sdk.names import directory_name
from shm_sdk.state import StateFile

DIRECTORY_SUFFIX = "_telemetry"
RETRY_S = 60.0  # the user may agree later, or the disk be repaired


class SharedDirectory:
    """The directory of one client, opened when it may be."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._path: Path | None = None
        self._checked_at: float | None = None
        self.in_memory_state = StateFile(None)

    def find(self) -> Path | None:
        """The directory, None where nothing can or may be stored."""
        if self._path is not None and not _is_private(self._path):  # an erasure has removed it
            self._path = self._checked_at = None
        if self._path is None and (self._checked_at is None or time.monotonic() - self._checked_at > RETRY_S):
            if _may_store(self._configuration):
                self._path = open_shared_directory(self._configuration)
            self._checked_at = time.monotonic()  # afterwards: other threads and children must not take it for a no
        return self._path

    def state_file(self) -> StateFile:
        """The state of the install's reports, in memory where nothing can or may be stored."""
        path = self.find()
        return StateFile(path) if path else self.in_memory_state

    def peek(self) -> Path | None:
        """The directory if it exists. Creates nothing."""
        if self._path is not None:
            return self._path
        candidates = _candidates(self._configuration)
        return next((path for path in candidates if _is_private(path)), None)

    def refresh(self) -> Path | None:
        """The same, after the user has decided."""
        self._checked_at = None
        return self.find()


def shared_path(configuration: Configuration) -> Path:
    """The directory of this application's state, whether it exists or not."""
    return configuration.data_dir / f"{directory_name(configuration.app_name)}{DIRECTORY_SUFFIX}"


def open_shared_directory(configuration: Configuration) -> Path | None:
    """The directory, created if necessary. None where no directory can be written."""
    for path in _candidates(configuration):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK | os.X_OK) and _is_private(path):
            return path
    return None


def remove_shared_files(configuration: Configuration) -> None:
    """Removes the directory, after an erasure."""
    with forking.import_lock:
        import shutil

    for path in _candidates(configuration):
        shutil.rmtree(path, ignore_errors=True)


def _candidates(configuration: Configuration) -> Iterator[Path]:
    """The places of the directory. The second one is computed only if it is needed."""
    yield shared_path(configuration)
    with forking.import_lock:
        import tempfile

    with suppress(OSError):  # there is none either
        yield _temporary_path(configuration, tempfile.gettempdir())


def _temporary_path(configuration: Configuration, root: str) -> Path:
    key = f"{configuration.data_dir}\0{configuration.app_name}".encode(errors="surrogatepass")
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(root) / f"shm-telemetry-{user}-{hash_hex(key)[:16]}"


def _is_private(path: Path) -> bool:
    """Whether it is a directory of this user: others may create one of the same name among temporary files."""
    if not hasattr(os, "getuid"):
        return os.path.isdir(path)  # noqa: PTH112  # `Path.is_dir` raises where the access is denied
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (os.getuid(), 0)


def _may_store(configuration: Configuration) -> bool:
    """Whether the user permits files: not before an agreement that the host asks for, and not after a refusal."""
    choice = read_choice(configuration)
    return choice.is_on or not (choice.is_off or configuration.consent == "opt-in")
