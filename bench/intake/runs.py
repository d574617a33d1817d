"""Runs of the driver against (a) and the server in turns; each run of the server is counted in its database."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.intake.noop_processes import NoopServer
from bench.intake.wrk import Run, drive, threads
from bench.support.errors import Fault
from bench.support.fleet import Fleet, Requests
from bench.support.server import RunningServer

SPARE = 1.5  # signed for each request that is expected, so that no run ends early for want of them


@dataclass
class Ledger:
    """What was sent, acknowledged and stored in all runs, and how much of the driver was ever wanted."""

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    most_unread: float = 0.0  # answers a second
    most_driver_cpu: float = 0.0  # cores

    def enter(self, run: Run, stored: int) -> None:
        """A run of the server. Raises Fault where the database does not hold what was acknowledged."""
        if not run.acknowledged <= stored <= run.sent:
            raise Fault(f"Of {run.sent} sent, {run.acknowledged} were acknowledged, but {stored} are stored.")
        self.sent += run.sent
        self.acknowledged += run.acknowledged
        self.stored += stored

    def enter_unread(self, run: Run) -> None:
        """A run of (a)."""
        self.most_unread = max(self.most_unread, run.rate)
        self.most_driver_cpu = max(self.most_driver_cpu, run.driver_cpu)


@dataclass(frozen=True, slots=True)
class Pair:
    """A run of (a) and right after it one of the server, and how many cores each took."""

    unread: Run
    durable: Run
    unread_cpu: float
    server_cpu: float
    postgres_cpu: float

    @property
    def ratio(self) -> float:
        """Durable snapshots for each request that (a) answered."""
        return self.durable.rate / self.unread.rate


class Runs:
    """What runs have in common: the two servers, and a folder for signed requests."""

    def __init__(self, folder: Path, server: RunningServer, mark: NoopServer, ledger: Ledger, seconds: int) -> None:
        self._folder = folder
        self._server = server
        self._mark = mark
        self._ledger = ledger
        self._seconds = seconds
        self._numbers = count()
        self._to_mark: Requests | None = None

    def ready_the_mark(self, fleet: Fleet, fastest: float, connections: int) -> None:
        """Signs what (a) is sent, in every run the same: it knows none again. `fastest`: requests a second."""
        self._to_mark = self._signed(fleet, fastest, connections)

    def wanted(self, rate: float, connections: int) -> int:
        """How many requests to sign for a run that answers `rate` a second."""
        return int(rate * self._seconds * SPARE) + connections

    def pair(self, fleet: Fleet, connections: int, pause_ms: float = 0.0, rate: float | None = None) -> Pair:
        """Sends the same kind of requests to (a), then to the server, which is expected to answer `rate` a second.

        Without a rate it is taken to be as fast as (a).
        """
        assert self._to_mark is not None, "`ready_the_mark` comes first"
        cpu_s = self._mark.cpu_seconds()
        unread = drive(self._mark.url, self._to_mark, connections, self._seconds, pause_ms)
        unread_cpu = (self._mark.cpu_seconds() - cpu_s) / unread.seconds
        self._ledger.enter_unread(unread)
        requests = self._signed(fleet, rate or unread.rate, connections)
        before_server, before_postgres = self._server.cpu_seconds()
        durable = self._durable(requests, connections, pause_ms)
        server, postgres = self._server.cpu_seconds()
        return Pair(
            *(unread, durable, unread_cpu),
            *((server - before_server) / durable.seconds, (postgres - before_postgres) / durable.seconds),
        )

    def _durable(self, requests: Requests, connections: int, pause_ms: float) -> Run:
        before = self._server.count_snapshots()
        run = drive(self._server.url, requests, connections, self._seconds, pause_ms)
        requests.discard()
        self._ledger.enter(run, self._server.count_snapshots() - before)
        return run

    def _signed(self, fleet: Fleet, rate: float, connections: int) -> Requests:
        path = self._folder / f"requests{next(self._numbers)}"
        return fleet.sign(path, self.wanted(rate, connections), threads(connections))
