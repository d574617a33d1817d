"""`make bench-read`: what reading costs at 10,000 and at 1,000,000 instances, and with ten times as much history.

Fleets are written by SQL, each into a PostgreSQL of its own with its own `shm serve`; then each endpoint is asked of
all of them in turns. What an answer costs stands beside what the same stack takes to look up a token and read one row.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from bench.read import costs
from bench.read.endpoints import ENDPOINTS, MARK, WARM_UP, Client, Endpoint, Places
from bench.read.latencies import COLUMNS, Readings, say_aims
from bench.read.seeded_fleet import Estate, hang_up, seed
from bench.support import machine
from bench.support.errors import Fault
from bench.support.report import Table, say
from bench.support.server import RunningServer, postmaster_pid, run_server
from shm.embedded import EmbeddedPostgres
from shm.endings import orderly

TENFOLD = 10
SEEDED_AT_ONCE = 2  # each keeps a core and a disk busy
ENOUGH_S = 40.0  # so long an endpoint is asked in all its rounds; fewer requests say enough of one that is slow
SELDOM = 3  # requests in a round, however long they take


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleets, and how often each endpoint is asked of each of them."""

    small: Estate
    large: Estate
    tenfold: Sequence[tuple[Estate, Estate]]  # a fleet, and the same with ten times its history
    rounds: int
    requests: int  # in a round

    @property
    def estates(self) -> list[Estate]:
        """All of them, the largest first."""
        wanted = dict.fromkeys([self.large, self.small, *(more for _, more in self.tenfold)])
        return sorted(wanted, key=lambda estate: -estate.installs * estate.snapshots)


def measure(plan: Plan, folder: Path) -> None:
    """Everything, said as it is found. Raises Fault where a figure would not be true."""
    homes = {estate: folder / f"fleet{place}" for place, estate in enumerate(plan.estates)}
    _seed_all(homes)
    with ExitStack() as stack:
        servers = {estate: stack.enter_context(run_server(home, 1)) for estate, home in homes.items()}
        clients = {estate: stack.enter_context(_client(server)) for estate, server in servers.items()}
        say(machine.described(servers[plan.small].fetch_value("SHOW server_version"), folder))
        _read_all(plan, clients)
        say()
        for estate in (plan.small, plan.large):
            costs.say_sizes(servers[estate].dsn, estate)
        costs.say_export(servers[plan.small], clients[plan.small], plan.small)
    with EmbeddedPostgres(homes[plan.small]).running() as dsn:
        postmaster = postmaster_pid(homes[plan.small])
        costs.say_check(dsn, postmaster, plan.small)
        costs.say_catch_up(dsn, postmaster, plan.small)


def _seed_all(homes: dict[Estate, Path]) -> None:
    with ThreadPoolExecutor(SEEDED_AT_ONCE) as pool:
        try:
            list(pool.map(_seed, homes.values(), homes))
        except BaseException:
            for home in homes.values():
                with suppress(OSError, psycopg2.Error):  # it has not begun, or has ended
                    hang_up(EmbeddedPostgres(home).dsn())
            raise


def _seed(home: Path, estate: Estate) -> None:
    with run_server(home, 1):
        pass  # its schema is made
    began = time.monotonic()
    with EmbeddedPostgres(home).running() as dsn:
        took = seed(dsn, estate)
    slow = sorted(took, key=lambda step: -took[step])[:4]
    say(
        f"{estate.named} snapshots: seeded in {time.monotonic() - began:.0f} s, most of it "
        + ", ".join(f"{step} {took[step]:.0f} s" for step in slow)
    )


@contextmanager
def _client(server: RunningServer) -> Iterator[Client]:
    client = Client(server.url, server.token, Places.found(server.dsn))
    try:
        yield client
    finally:
        client.close()


def _read_all(plan: Plan, clients: dict[Estate, Client]) -> None:
    say(f"\nmilliseconds, p50/p99 of {plan.rounds} x {plan.requests} requests; SELECT 1 is GET {MARK}")
    table = Table(*COLUMNS)
    mark = _read(plan, clients, Endpoint("SELECT 1, with a token", MARK))
    found = {"": mark}
    table.row(*mark.row(plan.small, plan.large, plan.tenfold, mark))
    for endpoint in ENDPOINTS:
        if not endpoint.is_there:
            say(f"{endpoint.name.rjust(COLUMNS[0][1])}  {costs.NOT_THERE}")
            continue
        readings = found[endpoint.name] = _read(plan, clients, endpoint)
        table.row(*readings.row(plan.small, plan.large, plan.tenfold, mark))
    del found[""]
    say()
    say_aims(list(found.values()), plan.small, plan.large, plan.tenfold, mark)


def _read(plan: Plan, clients: dict[Estate, Client], endpoint: Endpoint) -> Readings:
    """All fleets in turns, request by request, so that what else goes on in the machine hits each of them."""
    readings = Readings(endpoint)
    for client in clients.values():
        for _ in range(WARM_UP if endpoint.is_constant else 1):
            client.ask(endpoint)
    for _ in range(plan.rounds):
        readings.enter(_round(plan, clients, endpoint))
    return readings


def _round(plan: Plan, clients: dict[Estate, Client], endpoint: Endpoint) -> dict[Estate, list[float]]:
    ends = time.monotonic() + ENOUGH_S / plan.rounds
    taken: dict[Estate, list[float]] = {estate: [] for estate in clients}
    for number in range(plan.requests):
        if number >= SELDOM and time.monotonic() > ends:
            break
        for estate, client in clients.items():
            taken[estate].append(client.ask(endpoint))
    return taken


def main(arguments: Sequence[str]) -> int:
    """0 when everything was measured, whether or not an aim was met; 1 where a figure would not be true."""
    parser = argparse.ArgumentParser(prog="bench.read", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 and 50,000: to see that it works")
    parser.add_argument("--long", action="store_true", help="ten times the history of the large fleet too: 30 GB")
    parser.add_argument("--small", type=int, default=10_000, help="installs")
    parser.add_argument("--large", type=int, help="installs; by default 1,000,000")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the databases, on a real disk")  # noqa: S108
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with orderly(), tempfile.TemporaryDirectory(prefix="shm-bench-", dir=given.folder) as folder:
        try:
            measure(_plan(given), Path(folder))
        except Fault as fault:
            print(f"No figures: {fault}", file=sys.stderr)
            return 1
    say(f"took {time.monotonic() - began:.0f} s")
    return 0


def _plan(given: argparse.Namespace) -> Plan:
    rounds, requests, history = (2, 5, 3) if given.quick else (5, 40, 30)
    small = Estate(given.small, history)
    large = Estate(given.large or (50_000 if given.quick else 1_000_000), 3)
    tenfold = [small, *([large] if given.long else [])]
    more = [(estate, Estate(estate.installs, estate.snapshots * TENFOLD)) for estate in tenfold]
    return Plan(small, large, more, rounds, requests)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
