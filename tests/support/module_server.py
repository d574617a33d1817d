"""One server for all tests of a module that need no server of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.databases import fresh_database
from tests.support.server_process import ServerProcess


@contextmanager
def module_server(postgres: str, folder: Path, **environment: str) -> Iterator[tuple[ServerProcess, str]]:
    """A running server and the DSN of its new database. Each test uses an application of its own."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(folder / "data", {"SHM_DB_DSN": dsn, **environment})
        server.start()
        try:
            yield server, dsn
        finally:
            server.terminate()
