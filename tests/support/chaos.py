"""Random concurrent changes of a fleet: snapshots, moves to other applications, revocations, erasures, approvals.

Threads send random requests to any number of servers. A request that fails in transport is skipped.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import httpx

from tests.support import plain_http
from tests.support.clusters import wait_for
from tests.support.databases import admin_cursor
from tests.support.feed_history import HIDDEN_KEY
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

THREADS = 4
INSTALLS_PER_THREAD = 5
MAX_EVENTS = 5_000  # of each thread
RESPONSE_TIMEOUT_S = 60
EXPECTED_STATUSES = {200, 201, 202, 204, 403, 404, 409}
APPS = ("Ledger", "Kiosk", "Atlas")


class Chaos:
    """Installs of some applications, and admins who change their status."""

    def __init__(self, servers: Sequence[ServerProcess], seed: int, rest_s: float = 0.01) -> None:
        self._servers = servers
        self._seed = seed
        self._rest_s = rest_s  # the pause of each thread after each event
        self._stopped = threading.Event()
        self._final_installs = {app.lower(): Install(servers[0].url, app_name=app).enroll({"n": 0}) for app in APPS}
        self._runs: list[Future[int]] = []
        self.event_count = 0

    @property
    def is_running(self) -> bool:
        """Whether any thread still sends."""
        return any(not each.done() for each in self._runs)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the threads during the context."""
        self._stopped.clear()
        with ThreadPoolExecutor(THREADS) as pool:
            self._runs = [pool.submit(self._run, Random(self._seed + number)) for number in range(THREADS)]
            try:
                yield
            finally:
                self._stopped.set()
            for each in self._runs:
                self.event_count += each.result()

    def send_final_snapshots(self, database: str) -> dict[str | None, int]:
        """Sends a last snapshot for each application. Returns their cursors by slug; the key None has the newest."""
        for number, install in enumerate(self._final_installs.values()):
            wait_for(partial(_is_stored, install, {"n": number, "last": True}), "a last snapshot")
        with admin_cursor(database) as cursor:
            cursor.execute("SELECT instance_id::text, cursor FROM instances")
            cursors = dict(cursor.fetchall())
        last: dict[str | None, int] = {app: cursors[each.instance_id] for app, each in self._final_installs.items()}
        return last | {None: max(last.values())}

    def _run(self, rng: Random) -> int:
        event_count = 0
        with closing(plain_http.Client(timeout=RESPONSE_TIMEOUT_S)) as client:
            actor = _Actor(self._servers, rng, client)
            while not self._stopped.is_set() and event_count < MAX_EVENTS:
                try:
                    actor.trigger_event()
                except httpx.TransportError:
                    continue
                finally:
                    self._stopped.wait(self._rest_s)
                    event_count += 1
        return event_count


def _is_stored(install: Install, metrics: Any) -> bool:
    try:
        return install.snapshot(metrics).status_code == httpx.codes.ACCEPTED
    except httpx.TransportError:
        return False


class _Actor:
    """A thread's installs and the random events on them."""

    def __init__(self, servers: Sequence[ServerProcess], rng: Random, client: httpx.Client) -> None:
        self._servers = servers
        self._rng = rng
        self._client = client
        self._installs = [self._new_install() for _ in range(INSTALLS_PER_THREAD)]
        self._events: list[tuple[int, Callable[[int], None]]] = [
            (60, self._send),
            (6, self._enroll),
            (6, self._move),
            (4, self._move_twice),
            (3, self._erase_and_return),
            (3, self._delete),
            (2, self._revoke),
            (2, self._wait_for_approval),
            (2, self._edit),
        ]

    def trigger_event(self) -> None:
        """Runs one random event on a random install."""
        weights = [weight for weight, _ in self._events]
        (event,) = self._rng.choices([event for _, event in self._events], weights)
        event(self._rng.randrange(len(self._installs)))

    def _new_install(self) -> Install:
        return Install(self._rng.choice(self._servers).url, app_name=self._rng.choice(APPS))

    def _post(self, install: Install, path: str, body: bytes, *, signed: bool = True) -> None:
        headers = install.signed(body) if signed else {}
        url = f"{self._rng.choice(self._servers).url}{path}"
        self._check(self._client.post(url, content=body, headers=headers))

    def _request_admin(self, method: str, path: str, body: Any = None) -> None:
        server = self._rng.choice(self._servers)
        url = f"{server.url}/api/v1/admin/{path}"
        self._check(self._client.request(method, url, headers=self._servers[0].headers, json=body))

    def _check(self, response: httpx.Response) -> None:
        is_expected = response.status_code in EXPECTED_STATUSES or response.status_code >= 503
        assert is_expected or "signed_before_erasure" in response.text, response.text

    def _send(self, index: int) -> None:
        install = self._installs[index]
        number = self._rng.randrange(1_000)
        metrics = {"n": number, "mail": {"sent": number / 4}, "beta": number % 2 == 0, "plan": f"plan{number % 3}"}
        ago = timedelta(hours=self._rng.choice([0, 0, 0, 0, 1]))  # a late snapshot changes only `last_seen_at`
        self._post(install, "/v1/snapshot", install.snapshot_body(metrics, datetime.now(UTC) - ago))

    def _enroll(self, index: int) -> None:
        self._installs[index] = self._installs[index] if self._rng.random() < 0.5 else self._new_install()
        self._register(self._installs[index], self._installs[index].app_name)
        self._send(index)

    def _register(self, install: Install, app: str) -> None:
        install.app_name = app
        self._post(install, "/v1/register", install.registration(), signed=False)
        self._post(install, "/v1/activate", b'{"action":"activate"}')

    def _move(self, index: int) -> None:
        self._register(self._installs[index], self._rng.choice(APPS))

    def _move_twice(self, index: int) -> None:
        for app in self._rng.sample(APPS, 2):
            self._register(self._installs[index], app)

    def _erase_and_return(self, index: int) -> None:
        install = self._installs[index]
        payload = {"action": "erase", "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
        self._post(install, "/v1/erase", json.dumps(payload).encode())
        if self._rng.random() < 0.5:
            install.app_name = self._rng.choice(APPS)
            self._post(install, "/v1/register", install.registration(timestamp=datetime.now(UTC).isoformat()))

    def _delete(self, index: int) -> None:
        self._request_admin("DELETE", f"instances/{self._installs[index].instance_id}")
        self._installs[index] = self._new_install()

    def _revoke(self, index: int) -> None:
        self._request_admin("POST", f"instances/{self._installs[index].instance_id}/revoke")
        self._installs[index] = self._new_install()

    def _wait_for_approval(self, index: int) -> None:
        install = self._new_install()
        self._post(install, "/v1/register", install.registration(), signed=False)
        self._request_admin("POST", f"instances/{install.instance_id}/approve")
        self._installs[index] = install

    def _edit(self, _: int) -> None:
        label = f"Label {self._rng.randrange(100)}"
        aggregate = self._rng.choice(["sum", "avg", "max"])
        payload = {"overrides": {"n": {"label": label, "aggregate": aggregate}, HIDDEN_KEY: {"hidden": True}}}
        self._request_admin("PUT", f"applications/{self._rng.choice(APPS).lower()}", payload)
