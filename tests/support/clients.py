"""Clients of a server of the test's, and installs that have reported to it."""

from typing import Any

from shm_client import (
    Client,
)
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def client_of(server: ServerProcess, url: str | None = None, token: str | None = None) -> Client:
    """A client as the admin, unless there is another token."""
    return Client(url or server.url, token or server.admin_token)


def fleet(server: ServerProcess, count: int, **more: Any) -> list[Install]:
    """Installs that have reported once."""
    return [Install(server.url, **more).arrived({"n": number}) for number in range(count)]
