"""Data directories whose embedded PostgreSQL exists already: a copy takes a tenth of the CPU time of `initdb`."""

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from shm.db.embedded.postgres import EmbeddedPostgres
from tests.support.databases import create_weeks, migrate

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"of-{os.getpid()}")
FOLDER = Path(tempfile.gettempdir(), f"shm-tests-{RUN}")  # of all workers of a run; the last one removes it
USERS = FOLDER.with_suffix(".users")  # each worker that uses the folder holds a shared lock
TURN = FOLDER.with_suffix(".turn")  # a worker that creates or removes the folder holds an exclusive lock


def create_data_dir(path: Path) -> Path:
    """Creates a data directory with a migrated database, with the owner that `shm serve` gives it, and returns it."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-pR", str(_template() / "postgres"), str(path)], check=True)
    return path


@cache
def _template() -> Path:
    """A data directory with a migrated database and its partitions; nothing runs in it."""
    with _turn():
        users = USERS.open("ab")
        fcntl.flock(users, fcntl.LOCK_SH)
        if not FOLDER.exists():
            unfinished = FOLDER.with_suffix(".unfinished")
            with EmbeddedPostgres(unfinished).running() as dsn:
                migrate(dsn)
                create_weeks(dsn)
            unfinished.rename(FOLDER)
    atexit.register(_remove_if_unused, users)
    return FOLDER


@contextmanager
def _turn() -> Iterator[None]:
    with TURN.open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _remove_if_unused(users: IO[bytes]) -> None:
    with _turn(), suppress(BlockingIOError):  # another worker uses it
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(FOLDER)
        USERS.unlink()
        TURN.unlink()
