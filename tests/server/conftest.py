"""A server that hostile requests are sent to, and good installs beside them, for all tests of a file."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support import plain_http
from tests.support.databases import admin_cursor, fresh_database
from tests.support.installs import Install
from tests.support.server_process import ServerProcess
from tests.support.targets import Neighbours, Seeded, Target


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no long test runs, files of them are not even collected: Schemathesis makes its cases then, for seconds."""
    return True if collection_path.stem.endswith("_long") and config.option.markexpr == "not long" else None


@pytest.fixture(scope="module")
def target(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One server for a file's tests, on a database of its own. It takes snapshots of any age."""
    with fresh_database(postgres) as dsn:
        environment = {"SHM_DB_DSN": dsn, "SHM_MAX_SNAPSHOT_AGE": "36000d", "SHM_RETENTION": "36500d"}
        server = ServerProcess(tmp_path_factory.mktemp("target") / "data", environment)
        server.start()
        try:
            yield Target(server, dsn)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def seeded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """One server for a file's tests, on a database of its own."""
    with fresh_database(postgres) as dsn:
        server = ServerProcess(tmp_path_factory.mktemp("seeded") / "data", {"SHM_DB_DSN": dsn})
        server.start()
        try:
            one = Install(server.url).arrived({"invoices": 3, "mail": {"sent": 1.5}, "beta": True, "locale": "fr"})
            Install(server.url, app_name="Kiosk").arrived({"list": [None]}, ago=timedelta(days=1))
            revoked = Install(server.url, app_name="Kiosk").arrived()
            decision = f"{server.url}/api/v1/admin/instances/{revoked.instance_id}/revoke"
            plain_http.post(decision, headers=server.headers).raise_for_status()
            Install(server.url).register()
            said = {"name": "a script", "role": "viewer"}
            token = plain_http.post(f"{server.url}/api/v1/admin/tokens", json=said, headers=server.headers).json()
            known = {"slug": "ledger", "app": "Ledger", "instance_id": one.instance_id, "decision": "approve"}
            yield Seeded(server, known | {"token_id": token["id"]})
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def neighbours(target: Target) -> Iterator[Neighbours]:
    """The good installs of a file."""
    with admin_cursor(target.database) as cursor:
        yield Neighbours(Install(target.server.url).arrived(), Install(target.server.url).arrived(), cursor)


@pytest.fixture
def install(target: Target) -> Install:
    """The install that misbehaves: registered, active, and nothing stored of it yet."""
    install = Install(target.server.url)
    assert install.register().status_code == 201
    assert install.activate().status_code == 200
    return install
