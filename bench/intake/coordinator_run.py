"""Durable snapshots a second of a server on the coordinator of a Citus cluster, beside one on one PostgreSQL."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from bench.intake.runs import SIGNING_MARGIN, Totals
from bench.intake.wrk import WrkRun, run_wrk, thread_count
from bench.support import coordinator
from bench.support.fleet import Fleet
from bench.support.report import Samples, Table, print_line
from bench.support.server import RunningServer, run_server

COLUMNS = (
    *(("connections", 11), ("one PostgreSQL/s", 21), ("p50 ms", 7), ("p99 ms", 7)),
    *(("coordinator/s", 21), ("p50 ms", 7), ("p99 ms", 7), ("ratio", 16)),
)


def compare(
    dsn: str, folder: Path, connections: Sequence[int], fleet_size: int, seconds: int, rounds: int, totals: Totals
) -> None:
    """Runs against both servers alternate; each is checked against its database. Raises InvalidRun."""
    coordinator_dir = folder / "coordinator"
    print_line()
    coordinator.create_schema(dsn, coordinator_dir)
    coordinator.distribute(dsn)
    with run_server(folder / "data", 1) as one, run_server(coordinator_dir, 1, dsn) as distributed:
        runners = [_Runner(server, folder, fleet_size, seconds, totals) for server in (one, distributed)]
        for runner in runners:
            runner.run(max(connections))  # warms up the server's cache of public keys
        table = Table(*COLUMNS)
        for number in connections:
            pairs = [tuple(runner.run(number) for runner in runners) for _ in range(rounds)]
            cells = [f"{number}"]
            for runs in zip(*pairs, strict=True):
                cells.append(Samples([run.rate for run in runs]).format())
                cells.append(f"{Samples([run.p50_ms for run in runs]).median:.1f}")
                cells.append(f"{Samples([run.p99_ms for run in runs]).median:.1f}")
            cells.append(Samples([second.rate / first.rate for first, second in pairs]).format(2))
            table.print_row(*cells)


class _Runner:
    """Sends to one server, from a fleet of its own."""

    def __init__(self, server: RunningServer, folder: Path, fleet_size: int, seconds: int, totals: Totals) -> None:
        self._server = server
        self._folder = folder
        self._fleet = Fleet(fleet_size)
        self._fleet.seed(server.dsn)
        self._seconds = seconds
        self._totals = totals
        self._numbers = count()
        self._max_rate = totals.max_noop_rate

    def run(self, connections: int) -> WrkRun:
        """Sends new snapshots over this number of connections."""
        path = self._folder / f"{self._server.port}-{next(self._numbers)}"
        number = int(self._max_rate * self._seconds * SIGNING_MARGIN) + connections
        requests = self._fleet.sign(path, number, thread_count(connections))
        before = self._server.count_snapshots()
        run = run_wrk(self._server.url, requests, connections, self._seconds)
        requests.delete()
        self._totals.add_server_run(run, self._server.count_snapshots() - before)
        return run
