"""Alternating runs against the no-op server and the server; each run of the server is checked against its database."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.intake.noop_processes import NoopServer
from bench.intake.wrk import WrkRun, run_wrk, thread_count
from bench.support.errors import InvalidRun
from bench.support.fleet import Fleet, SignedRequests
from bench.support.machine import cpu_seconds
from bench.support.server import RunningServer

SIGNING_MARGIN = 1.5  # requests signed for each expected one, so that no run exhausts them


@dataclass
class Totals:
    """Requests of all runs against the server, and maxima of wrk."""

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    max_noop_rate: float = 0.0  # responses a second
    max_wrk_cores: float = 0.0

    def add_server_run(self, run: WrkRun, stored: int) -> None:
        """Raises InvalidRun if the database does not hold what was acknowledged."""
        if not run.acknowledged <= stored <= run.sent:
            raise InvalidRun(f"Of {run.sent} sent, {run.acknowledged} were acknowledged, but {stored} are stored.")
        self.sent += run.sent
        self.acknowledged += run.acknowledged
        self.stored += stored

    def add_noop_run(self, run: WrkRun) -> None:
        """Updates the maxima."""
        self.max_noop_rate = max(self.max_noop_rate, run.rate)
        self.max_wrk_cores = max(self.max_wrk_cores, run.wrk_cores)


@dataclass(frozen=True, slots=True)
class RunPair:
    """A run against the no-op server and the following one against the server, with the cores that each used."""

    noop: WrkRun
    server: WrkRun
    noop_cores: float
    server_cores: float
    postgres_cores: float
    storing_cores: float  # of PostgreSQL's, in the processes that store snapshots
    batches: int
    batch_s: float  # seconds of all of them, from the beginning of each write to its COMMIT

    @property
    def ratio(self) -> float:
        """Durable snapshots for each response of the no-op server."""
        return self.server.rate / self.noop.rate

    @property
    def server_ms(self) -> float:
        """CPU time of the server for each durable snapshot."""
        return self.server_cores / self.server.rate * 1e3

    @property
    def storing_ms(self) -> float:
        """The same of the processes of PostgreSQL that store snapshots, under the writers' lock."""
        return self.storing_cores / self.server.rate * 1e3

    @property
    def batch_ms(self) -> float:
        """Time for each durable snapshot, from the beginning of its batch's write to the COMMIT."""
        return self.batch_s / self.server.acknowledged * 1e3

    @property
    def postgres_ms(self) -> float:
        """The same of PostgreSQL, background jobs included."""
        return self.postgres_cores / self.server.rate * 1e3


class PairRunner:
    """Both servers, and a directory for signed requests."""

    def __init__(self, folder: Path, server: RunningServer, noop: NoopServer, totals: Totals, seconds: int) -> None:
        self._folder = folder
        self._server = server
        self._noop = noop
        self._totals = totals
        self._seconds = seconds
        self._numbers = count()
        self._noop_requests: SignedRequests | None = None

    def sign_noop_requests(self, fleet: Fleet, max_rate: float, connections: int) -> None:
        """Signs the requests for the no-op server once: it stores nothing, so every run sends the same."""
        self._noop_requests = self._sign(fleet, max_rate, connections)

    def request_count(self, rate: float, connections: int) -> int:
        """Requests to sign for a run at `rate` a second."""
        return int(rate * self._seconds * SIGNING_MARGIN) + connections

    def run_pair(
        self, fleet: Fleet, connections: int, pause_ms: float = 0.0, expected_rate: float | None = None
    ) -> RunPair:
        """Sends to the no-op server, then to the server. `expected_rate` defaults to the no-op server's rate."""
        assert self._noop_requests is not None, "call `sign_noop_requests` first"
        noop_cpu = self._noop.cpu_seconds()
        noop = run_wrk(self._noop.url, self._noop_requests, connections, self._seconds, pause_ms)
        noop_cores = (self._noop.cpu_seconds() - noop_cpu) / noop.seconds
        self._totals.add_noop_run(noop)
        requests = self._sign(fleet, expected_rate or noop.rate, connections)
        storing = self._server.storing_processes()
        (batches_before, batch_s_before), storing_before = self._server.batch_times(), sum(map(cpu_seconds, storing))
        server_before, postgres_before = self._server.cpu_seconds()
        server = self._run_server(requests, connections, pause_ms)
        server_after, postgres_after = self._server.cpu_seconds()
        (batches_after, batch_s_after), storing_after = self._server.batch_times(), sum(map(cpu_seconds, storing))
        return RunPair(
            noop=noop,
            server=server,
            noop_cores=noop_cores,
            server_cores=(server_after - server_before) / server.seconds,
            postgres_cores=(postgres_after - postgres_before) / server.seconds,
            storing_cores=(storing_after - storing_before) / server.seconds,
            batches=batches_after - batches_before,
            batch_s=batch_s_after - batch_s_before,
        )

    def run_server(self, fleet: Fleet, connections: int, expected_rate: float) -> None:
        """Sends to the server only."""
        self._run_server(self._sign(fleet, expected_rate, connections), connections, 0.0)

    def _run_server(self, requests: SignedRequests, connections: int, pause_ms: float) -> WrkRun:
        before = self._server.count_snapshots()
        run = run_wrk(self._server.url, requests, connections, self._seconds, pause_ms)
        requests.delete()
        self._totals.add_server_run(run, self._server.count_snapshots() - before)
        return run

    def _sign(self, fleet: Fleet, rate: float, connections: int) -> SignedRequests:
        path = self._folder / f"requests{next(self._numbers)}"
        return fleet.sign(path, self.request_count(rate, connections), thread_count(connections))
