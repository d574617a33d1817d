"""Clients of a test's server, and installs that have reported to it."""

from typing import Any

from shm_client import Client
from tests.support.installs import Install
from tests.support.server_process import ServerProcess


def make_client(server: ServerProcess, url: str | None = None, token: str | None = None) -> Client:
    """A client with the admin token, unless another is passed."""
    return Client(url or server.url, token or server.admin_token)


def report_installs(server: ServerProcess, count: int, **settings: Any) -> list[Install]:
    """Creates installs, each of which sends one snapshot."""
    return [Install(server.url, **settings).enroll({"n": number}) for number in range(count)]
