"""Starts servers for the length of a context, such as one for all tests of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.databases import fresh_database
from tests.support.server_process import ServerProcess


@contextmanager
def running_server(folder: Path, database: str, **environment: str) -> Iterator[ServerProcess]:
    """A server on a database during the context."""
    server = ServerProcess(folder / "data", {"SHM_DB_DSN": database, **environment})
    server.start()
    try:
        yield server
    finally:
        server.terminate()


@contextmanager
def module_server(postgres: str, folder: Path, **environment: str) -> Iterator[tuple[ServerProcess, str]]:
    """A running server and the DSN of its new database. Each test uses an application of its own."""
    with fresh_database(postgres) as dsn, running_server(folder, dsn, **environment) as server:
        yield server, dsn
