"""Fixtures of the SDK's tests: a scripted server with a real socket, and clients that are stopped after the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from shm_sdk.certificates import BUNDLE_VARIABLES, OPENSSL_VARIABLES
from tests.support.scripted_server import ScriptedServer, run_scripted_server
from tests.support.tls import Tls, create_tls


@pytest.fixture(autouse=True)
def _no_proxies_or_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", *OPENSSL_VARIABLES, *BUNDLE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SHM_OS_ARCH", raising=False)


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """A server that answers well unless the test scripts otherwise."""
    with run_scripted_server() as running:
        yield running


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for `localhost`, and the file of its authority."""
    return create_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def client(scripted_server: ScriptedServer, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Creates clients of the scripted server, with a data directory in `tmp_path`."""
    clients: list[Client] = []

    def make(**changes: Any) -> Client:
        settings: dict[str, Any] = {
            "server_url": scripted_server.url,
            "app_name": "Café Ledger",
            "app_version": "1.4.2",
            "data_dir": tmp_path / "data",
            "collect_system_metrics": False,
        }
        clients.append(Client(**(settings | changes)))
        return clients[-1]

    yield make
    for client in clients:
        client.stop()
