"""Strangers who do their worst for a while, each in a thread: they may be refused, and must cost nobody else anything.

A request that fails in transport is skipped: faults and refusals are what strangers meet.
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
PAUSE_S = 0.05  # of each stranger after each act: the load is bounded
READ_TIMEOUT_S = 1.0


class Strangers:
    """Strangers to one server. `acts` counts what each of them did."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self._url = url
        self._port = int(url.rpartition(":")[2])
        self._rng = rng
        self._ended = threading.Event()
        self.acts = dict.fromkeys(
            (each.__name__ for each in (self.malformed, self.invented_keys, self.idle, self.guesses, self.replays)), 0
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """All strangers act during the context."""
        self._ended.clear()
        acts = (self.malformed, self.invented_keys, self.idle, self.guesses, self.replays)
        with ThreadPoolExecutor(len(acts)) as pool:
            runs = [pool.submit(self._repeat, each) for each in acts]
            try:
                yield
            finally:
                self._ended.set()
            for run in runs:
                run.result()

    def _repeat(self, act_once: Callable[[], None]) -> None:
        while not self._ended.is_set():
            with suppress(httpx.HTTPError, OSError):
                act_once()
                self.acts[act_once.__name__] += 1
            self._ended.wait(PAUSE_S)

    def malformed(self) -> None:
        """One broken or hostile request, as bytes."""
        install = Install(self._url)
        install.register()
        cases = list(corpus(install))
        _, raw = cases[self._rng.randrange(len(cases))]
        with socket.create_connection(("127.0.0.1", self._port), READ_TIMEOUT_S) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def invented_keys(self) -> None:
        """A new install of a new application sends a backlog of invented keys and values, and erases itself."""
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

    def idle(self) -> None:
        """Connections that send nothing, or half of a request."""
        with ExitStack() as stack:
            for number in range(IDLE_CONNECTIONS):
                connection = stack.enter_context(RawConnection(self._port))
                if number % 2:
                    connection.send(b"POST /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Le")
            self._ended.wait(1.0)

    def guesses(self) -> None:
        """A wrong token."""
        headers = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"}
        plain_http.get(f"{self._url}/api/v1/admin/instances", headers=headers)

    def replays(self) -> None:
        """An install's requests, sent again after its erasure."""
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
