"""What the SDK's tests stand on: a peer with a real socket, and clients that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shm_sdk import Client
from tests.support.peer import Peer, running_peer


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SHM_OS_ARCH", raising=False)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server that behaves well until told otherwise."""
    with running_peer() as running:
        yield running


@pytest.fixture
def client(peer: Peer, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Makes clients of the peer, with a data directory of the test's own."""
    made: list[Client] = []

    def make(**changes: Any) -> Client:
        settings: dict[str, Any] = {
            "server_url": peer.url,
            "app_name": "Café Ledger",
            "app_version": "1.4.2",
            "data_dir": tmp_path / "data",
            "collect_system_metrics": False,
        }
        made.append(Client(**(settings | changes)))
        return made[-1]

    yield make
    for one in made:
        one.stop()
