"""What tests stand on: one real PostgreSQL, a database of its own for each test, real server processes."""

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn

from shm.embedded import EmbeddedPostgres
from tests.support.databases import TEMPLATE, admin_cursor, fresh_database, migrate
from tests.support.server_process import ServerProcess


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests must not depend on what is set where they run."""
    for name in [name for name in os.environ if name.startswith("SHM_")]:
        monkeypatch.delenv(name)
    for name in ("DATABASE_URL", "PORT", "DO_NOT_TRACK", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for an embedded PostgreSQL. Not pytest's: each run closes those of others to PostgreSQL's user."""
    with tempfile.TemporaryDirectory(prefix="shm-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a PostgreSQL that lives as long as the session, with a migrated template database.

    It survives no power cut: tests of durability have an embedded PostgreSQL of their own.
    """
    with (
        tempfile.TemporaryDirectory(prefix="shm-tests-") as folder,
        EmbeddedPostgres(Path(folder)).running() as dsn,
    ):
        with admin_cursor(dsn) as cursor:
            for setting in ("fsync", "full_page_writes"):
                cursor.execute(f"ALTER SYSTEM SET {setting} = off")
            cursor.execute("SELECT pg_reload_conf()")
            cursor.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(make_dsn(dsn, dbname=TEMPLATE))
        yield dsn


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The DSN of a fresh, migrated database."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture
def serve(database: str, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts `shm serve` processes on the test's database; they end with the test."""
    started: list[ServerProcess] = []
    numbers = count()

    def start(**environment: str) -> ServerProcess:
        data_dir = tmp_path / f"server{next(numbers)}"
        server = ServerProcess(data_dir, {"SHM_DB_DSN": database, **environment})
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.terminate()


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """One `shm serve` process."""
    return serve()


@pytest.fixture(scope="session")
def running(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that need none, and no database, of their own."""
    server = ServerProcess(tmp_path_factory.mktemp("running") / "data", {"SHM_DB_DSN": postgres})
    server.start()
    yield server
    server.terminate()
