"""Hostile clients without a token or a known key, each in a thread. The server may refuse all of their requests.

A request that fails in transport is skipped, because the test also stops the server.
"""

import json
import random
import secrets
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx

from tests.support import plain_http
from tests.support.hostile import corpus
from tests.support.installs import Install
from tests.support.raw_http import RawConnection
from tests.support.signed_actions import act, backlog

IDLE_CONNECTIONS = 60
PAUSE_S = 0.05  # of each client after each attack, which bounds the load
READ_TIMEOUT_S = 1.0


class HostileClients:
    """The hostile clients of one server. `attacks` has the number of attacks by kind."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self._url = url
        self._port = int(url.rpartition(":")[2])
        self._rng = rng
        self._stopped = threading.Event()
        self._attack_functions = (
            self.send_malformed,
            self.invent_keys,
            self.hold_connections,
            self.guess_token,
            self.replay,
        )
        self.attacks = {attack.__name__: 0 for attack in self._attack_functions}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs all of them during the context."""
        self._stopped.clear()
        with ThreadPoolExecutor(len(self._attack_functions)) as pool:
            runs = [pool.submit(self._repeat, each) for each in self._attack_functions]
            try:
                yield
            finally:
                self._stopped.set()
            for run in runs:
                run.result()

    def _repeat(self, attack: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            with suppress(httpx.HTTPError, OSError):
                attack()
                self.attacks[attack.__name__] += 1
            self._stopped.wait(PAUSE_S)

    def send_malformed(self) -> None:
        """Sends one malformed or hostile request."""
        install = Install(self._url)
        install.register()
        cases = list(corpus(install))
        _, raw = cases[self._rng.randrange(len(cases))]
        with socket.create_connection(("127.0.0.1", self._port), READ_TIMEOUT_S) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def invent_keys(self) -> None:
        """Sends a backlog of random keys and values as a new install of a new application, and may erase it."""
        install = Install(self._url, app_name=f"Invented {uuid.uuid4().hex[:6]}")
        install.register()
        install.activate()
        now = datetime.now(UTC)
        members = [
            {
                "timestamp": (now - timedelta(hours=hours)).isoformat(),
                "metrics": {
                    secrets.token_hex(6): self._rng.choice([1, True, secrets.token_hex(8)]) for _ in range(200)
                },
            }
            for hours in range(1, 20)
        ]
        backlog(install, members)
        if self._rng.random() < 0.5:
            act(install, "erase")

    def hold_connections(self) -> None:
        """Opens connections that send nothing, or half of a request."""
        with ExitStack() as stack:
            for number in range(IDLE_CONNECTIONS):
                connection = stack.enter_context(RawConnection(self._port))
                if number % 2:
                    connection.send(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Le")
            self._stopped.wait(1.0)

    def guess_token(self) -> None:
        """Sends an invalid token."""
        headers = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"}
        plain_http.get(f"{self._url}/api/v1/admin/instances", headers=headers)

    def replay(self) -> None:
        """Sends the requests of an install again after its erasure."""
        install = Install(self._url, app_name="Replayed")
        body = install.snapshot_body({"n": 1})
        requests: list[tuple[str, bytes, dict[str, str] | None]] = [
            ("/v1/register", install.registration(), {}),
            ("/v1/activate", json.dumps({"action": "activate"}).encode(), None),
            ("/v1/snapshot", body, None),
        ]
        for _ in range(2):
            for path, content, headers in requests:
                install.post(path, content, install.signed(content) if headers is None else headers)
            act(install, "erase")
