"""`make bench-read`: latencies of the admin API at 10,000 and at 1,000,000 instances, and with ten times the history.

Each fleet is inserted by SQL into its own PostgreSQL with its own `shm serve`; requests to all of them alternate. The
baseline is the time in which the same stack checks a token and reads one row.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from bench.read import costs
from bench.read.embedded_fleet import seed_embedded
from bench.read.endpoints import BASELINE_PATH, ENDPOINTS, WARM_UP_REQUESTS, Endpoint, PathParameters, TimedClient
from bench.read.latencies import COLUMNS, COORDINATOR_COLUMNS, Latencies, print_targets
from bench.read.seeded_fleet import SeededFleet, seed_fleet, terminate_backends
from bench.support import coordinator, machine
from bench.support.command import run_in_folder
from bench.support.report import Table, print_line
from bench.support.server import RunningServer, postmaster_pid, run_server
from shm.db.embedded.postgres import EmbeddedPostgres

HISTORY_FACTOR = 10
SEED_CONCURRENCY = 2  # each uses a core and the disk fully
MAX_ENDPOINT_S = 40.0  # for an endpoint in all rounds; a slow one gets fewer requests
MIN_REQUESTS = 3  # in a round, however long they take

Clients = dict[SeededFleet, TimedClient]


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleets, and the number of requests to each endpoint of each fleet."""

    small: SeededFleet
    large: SeededFleet
    tenfold: Sequence[tuple[SeededFleet, SeededFleet]]  # a fleet, and the same with ten times the history
    rounds: int
    requests: int  # in a round
    distributed: SeededFleet | None = None  # the small fleet again, on a coordinator of Citus

    @property
    def fleets(self) -> list[SeededFleet]:
        """All fleets, the largest first."""
        distributed = [] if self.distributed is None else [self.distributed]
        fleets = dict.fromkeys([self.large, self.small, *(more for _, more in self.tenfold), *distributed])
        return sorted(fleets, key=lambda fleet: -fleet.installs * fleet.snapshots)


def measure(plan: Plan, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    data_dirs = {fleet: folder / f"fleet{number}" for number, fleet in enumerate(plan.fleets)}
    _seed_all(data_dirs)
    with ExitStack() as stack:
        servers = {
            fleet: stack.enter_context(run_server(data_dir, 1, fleet.dsn)) for fleet, data_dir in data_dirs.items()
        }
        clients = {fleet: stack.enter_context(_client(server)) for fleet, server in servers.items()}
        print_line(machine.describe_machine(servers[plan.small].fetch_value("SHOW server_version"), folder))
        _measure_endpoints(plan, clients)
        print_line()
        for fleet in (plan.small, plan.large):
            costs.print_sizes(servers[fleet].dsn, fleet)
        costs.print_export(servers[plan.small], clients[plan.small], plan.small)
    with EmbeddedPostgres(data_dirs[plan.small]).running() as dsn:
        postmaster = postmaster_pid(data_dirs[plan.small])
        costs.print_check(dsn, postmaster, plan.small)
        costs.print_rollup(dsn, postmaster, plan.small)
    if plan.distributed is not None:
        costs.print_check(plan.distributed.dsn, None, plan.distributed)
        costs.print_rollup(plan.distributed.dsn, None, plan.distributed)


def _seed_all(data_dirs: dict[SeededFleet, Path]) -> None:
    with ThreadPoolExecutor(SEED_CONCURRENCY) as pool:
        try:
            list(pool.map(_seed, data_dirs.values(), data_dirs))
        except BaseException:
            for data_dir in data_dirs.values():
                with suppress(OSError, psycopg2.Error):  # it has not started, or has ended
                    terminate_backends(EmbeddedPostgres(data_dir).dsn())
            raise


def _seed(data_dir: Path, fleet: SeededFleet) -> None:
    if fleet.dsn:
        coordinator.create_schema(fleet.dsn, data_dir)
        seed_fleet(fleet.dsn, fleet)
        coordinator.distribute(fleet.dsn)
        return
    started = time.monotonic()
    durations = seed_embedded(data_dir, fleet)
    slowest = sorted(durations, key=lambda step: -durations[step])[:4]
    print_line(
        f"{fleet.name} snapshots: seeded in {time.monotonic() - started:.0f} s, most of it "
        + ", ".join(f"{step} {durations[step]:.0f} s" for step in slowest)
    )


@contextmanager
def _client(server: RunningServer) -> Iterator[TimedClient]:
    client = TimedClient(server.url, server.token, PathParameters.read(server.dsn))
    try:
        yield client
    finally:
        client.close()


def _measure_endpoints(plan: Plan, clients: Clients) -> None:
    print_line(f"\nmilliseconds, p50/p99 of {plan.rounds} x {plan.requests} requests; SELECT 1 is GET {BASELINE_PATH}")
    table = Table(*COLUMNS, *(COORDINATOR_COLUMNS if plan.distributed is not None else ()))
    baseline = _measure_endpoint(plan, clients, Endpoint("SELECT 1, with a token", BASELINE_PATH))
    measured = {"": baseline}
    table.print_row(*baseline.cells(plan.small, plan.large, plan.tenfold, baseline, plan.distributed))
    for endpoint in ENDPOINTS:
        if endpoint.route is None:
            print_line(f"{endpoint.name.rjust(COLUMNS[0][1])}  {costs.NOT_AVAILABLE}")
            continue
        latencies = measured[endpoint.name] = _measure_endpoint(plan, clients, endpoint)
        table.print_row(*latencies.cells(plan.small, plan.large, plan.tenfold, baseline, plan.distributed))
    del measured[""]
    print_line()
    print_targets(list(measured.values()), plan.small, plan.large, plan.tenfold, baseline)


def _measure_endpoint(plan: Plan, clients: Clients, endpoint: Endpoint) -> Latencies:
    """Requests to all fleets alternate, so that other load affects each of them."""
    latencies = Latencies(endpoint)
    for client in clients.values():
        for _ in range(WARM_UP_REQUESTS if endpoint.is_constant else 1):
            client.request(endpoint)
    for _ in range(plan.rounds):
        latencies.add_round(_measure_round(plan, clients, endpoint))
    return latencies


def _measure_round(plan: Plan, clients: Clients, endpoint: Endpoint) -> dict[SeededFleet, list[float]]:
    deadline = time.monotonic() + MAX_ENDPOINT_S / plan.rounds
    latencies: dict[SeededFleet, list[float]] = {fleet: [] for fleet in clients}
    for number in range(plan.requests):
        if number >= MIN_REQUESTS and time.monotonic() > deadline:
            break
        for fleet, client in clients.items():
            latencies[fleet].append(client.request(endpoint))
    return latencies


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.read", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10,000 and 50,000 instances, as a smoke test")
    parser.add_argument("--long", action="store_true", help="ten times the history of the large fleet too, 30 GB")
    parser.add_argument("--small", type=int, default=10_000, help="installs")
    parser.add_argument("--large", type=int, help="installs; by default 1,000,000")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the databases, on a real disk")  # noqa: S108
    parser.add_argument("--dsn", default="", help="an empty database on a coordinator of Citus, to compare with")
    options = parser.parse_args(arguments)
    return run_in_folder(options.folder, lambda folder: measure(_plan(options), folder), is_durable=False)


def _plan(options: argparse.Namespace) -> Plan:
    rounds, requests, history = (2, 5, 3) if options.quick else (5, 40, 30)
    small = SeededFleet(options.small, history)
    large = SeededFleet(options.large or (50_000 if options.quick else 1_000_000), 3)
    tenfold = [small, *([large] if options.long else [])]
    more = [(fleet, SeededFleet(fleet.installs, fleet.snapshots * HISTORY_FACTOR)) for fleet in tenfold]
    distributed = SeededFleet(small.installs, small.snapshots, options.dsn) if options.dsn else None
    return Plan(small, large, more, rounds, requests, distributed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
