"""A fleet where everything happens at once: snapshots, moves to other applications, revocations, erasures, approvals.

Threads play it against any number of servers, by chance; what cannot be delivered is left out, because installs and
vendors try again some time, and another thing happens then.
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
from tests.support.installs import Install
from tests.support.server_process import ServerProcess

THREADS = 4
INSTALLS = 5  # of each thread
MOST = 5_000  # things that a thread lets happen
ANSWER_LIMIT_S = 30
EXPECTED = {200, 201, 202, 204, 403, 404, 409}
APPS = ("Ledger", "Kiosk", "Atlas")


class Chaos:
    """Installs of some applications, and people who decide about them."""

    def __init__(self, servers: Sequence[ServerProcess], seed: int, rest_s: float = 0.01) -> None:
        self._servers = servers
        self._seed = seed
        self._rest_s = rest_s  # of each thread, after each thing that happened
        self._ended = threading.Event()
        self._last = {app.lower(): Install(servers[0].url, app_name=app).enroll({"n": 0}) for app in APPS}
        self._playing: list[Future[int]] = []
        self.event_count = 0

    @property
    def is_running(self) -> bool:
        """Whether anything still happens."""
        return any(not each.done() for each in self._playing)

    @contextmanager
    def running(self) -> Iterator[None]:
        """It goes on as long as the context lasts."""
        self._ended.clear()
        with ThreadPoolExecutor(THREADS) as pool:
            self._playing = [pool.submit(self._play, Random(self._seed + number)) for number in range(THREADS)]
            try:
                yield
            finally:
                self._ended.set()
            for each in self._playing:
                self.event_count += each.result()

    def send_final_snapshots(self, database: str) -> dict[str | None, int]:
        """One last snapshot of each application; their cursors, by its slug. None: the newest of all."""
        for number, install in enumerate(self._last.values()):
            wait_for(partial(_sent, install, {"n": number, "last": True}), "a last snapshot")
        with admin_cursor(database) as cursor:
            cursor.execute("SELECT instance_id::text, cursor FROM instances")
            cursors = dict(cursor.fetchall())
        last: dict[str | None, int] = {app: cursors[each.instance_id] for app, each in self._last.items()}
        return last | {None: max(last.values())}

    def _play(self, chance: Random) -> int:
        happened = 0
        with closing(plain_http.Client(timeout=ANSWER_LIMIT_S)) as client:
            people = _People(self._servers, chance, client)
            while not self._ended.is_set() and happened < MOST:
                try:
                    people.trigger_event()
                except httpx.TransportError:
                    continue
                finally:
                    self._ended.wait(self._rest_s)
                    happened += 1
        return happened


def _sent(install: Install, metrics: Any) -> bool:
    try:
        return install.snapshot(metrics).status_code == httpx.codes.ACCEPTED
    except httpx.TransportError:
        return False


class _People:
    """A thread's installs, and what happens to them."""

    def __init__(self, servers: Sequence[ServerProcess], chance: Random, client: httpx.Client) -> None:
        self._servers = servers
        self._chance = chance
        self._client = client
        self._installs = [self._newcomer() for _ in range(INSTALLS)]
        self._events: list[tuple[int, Callable[[int], None]]] = [
            (60, self._send),
            (6, self._come),
            (6, self._move),
            (4, self._move_twice),
            (3, self._erase_and_return),
            (3, self._delete),
            (2, self._revoke),
            (2, self._wait_for_approval),
            (2, self._edit),
        ]

    def trigger_event(self) -> None:
        """One thing, to one of the installs."""
        weights = [weight for weight, _ in self._events]
        (event,) = self._chance.choices([event for _, event in self._events], weights)
        event(self._chance.randrange(len(self._installs)))

    def _newcomer(self) -> Install:
        return Install(self._chance.choice(self._servers).url, app_name=self._chance.choice(APPS))

    def _post(self, install: Install, path: str, body: bytes, *, signed: bool = True) -> None:
        headers = install.signed(body) if signed else {}
        url = f"{self._chance.choice(self._servers).url}{path}"
        self._expect(self._client.post(url, content=body, headers=headers))

    def _decide(self, method: str, path: str, body: Any = None) -> None:
        server = self._chance.choice(self._servers)
        url = f"{server.url}/api/v1/admin/{path}"
        self._expect(self._client.request(method, url, headers=self._servers[0].headers, json=body))

    def _expect(self, answer: httpx.Response) -> None:
        assert answer.status_code in EXPECTED or answer.status_code >= 503, answer.text

    def _send(self, who: int) -> None:
        install = self._installs[who]
        number = self._chance.randrange(1_000)
        metrics = {"n": number, "mail": {"sent": number / 4}, "beta": number % 2 == 0, "plan": f"plan{number % 3}"}
        ago = timedelta(hours=self._chance.choice([0, 0, 0, 0, 1]))  # a late one changes no more than when it was seen
        self._post(install, "/v1/snapshot", install.snapshot_body(metrics, datetime.now(UTC) - ago))

    def _come(self, who: int) -> None:
        self._installs[who] = self._installs[who] if self._chance.random() < 0.5 else self._newcomer()
        self._register(self._installs[who], self._installs[who].app_name)
        self._send(who)

    def _register(self, install: Install, app: str) -> None:
        install.app_name = app
        self._post(install, "/v1/register", install.registration(), signed=False)
        self._post(install, "/v1/activate", b'{"action":"activate"}')

    def _move(self, who: int) -> None:
        self._register(self._installs[who], self._chance.choice(APPS))

    def _move_twice(self, who: int) -> None:
        for app in self._chance.sample(APPS, 2):
            self._register(self._installs[who], app)

    def _erase_and_return(self, who: int) -> None:
        install = self._installs[who]
        said = {"action": "erase", "instance_id": install.instance_id, "timestamp": datetime.now(UTC).isoformat()}
        self._post(install, "/v1/erase", json.dumps(said).encode())
        if self._chance.random() < 0.5:
            self._register(install, self._chance.choice(APPS))

    def _delete(self, who: int) -> None:
        self._decide("DELETE", f"instances/{self._installs[who].instance_id}")
        self._installs[who] = self._newcomer()

    def _revoke(self, who: int) -> None:
        self._decide("POST", f"instances/{self._installs[who].instance_id}/revoke")
        self._installs[who] = self._newcomer()

    def _wait_for_approval(self, who: int) -> None:
        newcomer = self._newcomer()
        self._post(newcomer, "/v1/register", newcomer.registration(), signed=False)
        self._decide("POST", f"instances/{newcomer.instance_id}/approve")
        self._installs[who] = newcomer

    def _edit(self, _: int) -> None:
        label = f"Label {self._chance.randrange(100)}"
        aggregate = self._chance.choice(["sum", "avg", "max"])
        said = {"overrides": {"n": {"label": label, "aggregate": aggregate}, "beta": {"hidden": True}}}
        self._decide("PUT", f"applications/{self._chance.choice(APPS).lower()}", said)
