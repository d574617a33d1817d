"""Data directories whose embedded PostgreSQL exists already: a copy takes a tenth of the CPU time of `initdb`."""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from shm.db.embedded import EmbeddedPostgres
from tests.support.databases import create_weeks, migrate


@cache
def _template() -> Path:
    """A data directory with a migrated database with its partitions; nothing runs in it."""
    folder = Path(tempfile.mkdtemp(prefix="shm-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with EmbeddedPostgres(folder).running() as dsn:
        migrate(dsn)
        create_weeks(dsn)
    return folder


def create_data_dir(path: Path) -> Path:
    """Creates a data directory with a migrated database, with the owner that `shm serve` gives it, and returns it."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-pR", str(_template() / "postgres"), str(path)], check=True)
    return path
