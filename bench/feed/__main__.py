"""`make bench-feed`: latency from 202 to the subscriber, at 1,000 subscribers and 1,000 snapshots a second.

The baseline writes the same bytes to plain sockets. Drivers, server and PostgreSQL share the machine, so the
cores that each of them used are printed too.
"""

import argparse
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.feed.feed_run import SAMPLE_SIZE, FeedRun, ServerMemory, measure_baseline, measure_server
from bench.support import machine
from bench.support.command import parse_numbers, run_in_folder
from bench.support.errors import InvalidRun
from bench.support.fleet import Fleet
from bench.support.report import Samples, Table, print_line, print_target
from bench.support.server import RunningServer, run_server, settings

WORKERS = (1, 2)
SUBSCRIBERS = (1, 100, 1_000)
RATES = (100, 1_000)
FLEET_SIZE = 2_000  # installs that take turns: each reports every two seconds at the highest rate
STALLED = 10  # subscribers with small buffers that never read
STALLED_RUN_SIZE = 100  # at this number of subscribers one more run has as many stalled ones
ROUNDS = 2  # of the largest run, alternating with and without stalled subscribers
EXTRA_FILES = 500  # descriptors in addition to one for each subscriber
MAX_P99_MS = 250.0
MAX_GROWTH = 0.05
COLUMNS = (
    *(
        ("subscribers", 17),
        ("target/s", 8),
        ("stored/s", 8),
        ("202 p99", 7),
        ("received/s", 10),
        ("p50 ms", 7),
        ("p99 ms", 7),
    ),
    *(("us/message", 10), ("cores: server", 13), ("postgres", 8), ("drivers", 7), ("others", 6)),
    *(("MiB: before", 11), ("idle", 5), ("max", 5), ("after", 5)),
)

LEGEND = """{seconds:g} s each. ms are from 202 to the message, of {sample} subscribers (202 p99: from sending to 202).
us/message is the server's CPU time less that of the same snapshots without subscribers; with few of them it is noise.
Drivers are the sender and the subscribers, on the same cores as the server; others is the rest of the machine. The
baseline writes the same messages ten times a second without a server; its ms start when a message is created. Where
202s are late, less is stored than the target.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of subscribers, rates, the duration of a run, and the rounds of the largest run.

    Everything is measured with the first of `workers`, only the largest run with the others.
    """

    workers: Sequence[int]
    subscribers: Sequence[int]
    rates: Sequence[int]
    stalled: int
    seconds: float
    rounds: int

    @property
    def largest(self) -> tuple[int, int]:
        """Subscribers and snapshots a second of the largest run, to which the targets apply."""
        return max(self.subscribers), max(self.rates)


@dataclass(frozen=True, slots=True)
class LargestRuns:
    """The rounds of the largest run: without and with additional stalled subscribers."""

    reading: list[tuple[FeedRun, ServerMemory]]
    stalled: list[tuple[FeedRun, ServerMemory]]


class _FeedBench:
    """The server, its fleet, and the table."""

    def __init__(self, plan: Plan, server: RunningServer, folder: Path, table: Table) -> None:
        self._plan = plan
        self._server = server
        self._folder = folder
        self._fleet = Fleet(FLEET_SIZE)
        self._fleet.seed(server.dsn)
        self._table = table
        self._cpu_per_snapshot: dict[
            int, float
        ] = {}  # the server's CPU seconds per snapshot without subscribers, by rate

    def run(self, readers: int, rate: int, stalled: int = 0) -> tuple[FeedRun, ServerMemory]:
        """Runs and prints a row; the first time at a rate, also the run without subscribers."""
        plan = self._plan
        if readers and rate not in self._cpu_per_snapshot:
            self.run(0, rate)
        run, memory = measure_server(self._server, self._fleet, self._folder, rate, plan.seconds, readers, stalled)
        if not readers:
            self._cpu_per_snapshot[rate] = run.cpu["server"] / run.sent.acknowledged
        without = self._cpu_per_snapshot[rate] * run.sent.acknowledged
        self._table.print_row(
            *(_row_name(readers, stalled), f"{rate:,}", f"{run.rate:,.0f}", f"{run.acknowledged_p99_ms:,.0f}"),
            f"{run.messages_per_s:,.0f}",
            *(_ms(run, 0.5), _ms(run, 0.99), f"{run.us_per_message('server', without):.1f}" if readers else ""),
            *(f"{run.cores('server'):.2f}", f"{run.cores('postgres'):.2f}"),
            *(f"{run.cores('subscribers', 'sender'):.2f}", f"{run.cores('others'):.2f}"),
            *(f"{memory.before:,.0f}", f"{memory.idle:,.0f}", f"{max(memory.under_load):,.0f}", f"{memory.after:,.0f}"),
        )
        _print_incomplete(run, readers)
        return run, memory


def measure(plan: Plan, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    largest: dict[int, LargestRuns] = {}
    table = Table(*COLUMNS)
    for workers in plan.workers:
        with run_server(folder / f"data{workers}", workers) as server:
            if not largest:
                print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), folder))
                print_line(f"settings other than the defaults: {settings(1)}; fsync is on")
                print_line(LEGEND.format(seconds=plan.seconds, sample=SAMPLE_SIZE))
            print_line(f"{_worker_count(workers)}:")
            bench = _FeedBench(plan, server, folder, table)
            if not largest:
                _measure_others(plan, bench, table)
            largest[workers] = _measure_largest(plan, bench)
    print_line("without a server:")
    baseline = _measure_baseline(plan, table, *plan.largest, largest[plan.workers[0]].reading[0][0].received.example)
    for workers in plan.workers:
        _print_targets(plan, _worker_count(workers), largest[workers], baseline)


def _measure_others(plan: Plan, bench: _FeedBench, table: Table) -> None:
    for readers in plan.subscribers:
        for rate in plan.rates:
            if (readers, rate) != plan.largest:
                run, _ = bench.run(readers, rate)
                if readers == STALLED_RUN_SIZE:
                    bench.run(readers, rate, stalled=STALLED_RUN_SIZE)
                _measure_baseline(plan, table, readers, rate, run.received.example)


def _measure_largest(plan: Plan, bench: _FeedBench) -> LargestRuns:
    runs = LargestRuns([], [])
    for _ in range(plan.rounds):
        runs.reading.append(bench.run(*plan.largest))
        runs.stalled.append(bench.run(*plan.largest, stalled=plan.stalled))
    return runs


def _measure_baseline(plan: Plan, table: Table, readers: int, rate: int, example: bytes) -> FeedRun:
    """Runs and prints a row."""
    run = measure_baseline(example, rate, plan.seconds, readers)
    table.print_row(
        *("baseline", f"{rate:,}", "", "", f"{run.messages_per_s:,.0f}", _ms(run, 0.5), _ms(run, 0.99)),
        *(
            f"{run.us_per_message('baseline'):.1f}",
            f"{run.cores('baseline'):.2f}",
            "",
            f"{run.cores('subscribers'):.2f}",
        ),
        f"{run.cores('others'):.2f}",
        *("", "", "", ""),
    )
    _print_incomplete(run, readers)
    return run


def _print_incomplete(run: FeedRun, readers: int) -> None:
    if run.received.behind or run.received.closed:
        print_line(
            f"    of these {readers:,}, {run.received.behind:,} had not received everything at the time-out, "
            f"{run.seconds:.0f} s after the first snapshot, and the server had closed {run.received.closed:,}"
        )


def _print_targets(plan: Plan, workers: str, largest: LargestRuns, baseline: FeedRun) -> None:
    readers, rate = plan.largest
    p99 = Samples([run.latency_quantile_ms(0.99) for run, _ in largest.reading])
    p99_with_stalled = Samples([run.latency_quantile_ms(0.99) for run, _ in largest.stalled])
    reached = Samples([run.rate for run, _ in largest.reading])
    cores = [Samples([run.cores("server") for run, _ in runs]) for runs in (largest.reading, largest.stalled)]
    growth = max(memory.growth for _, memory in (*largest.reading, *largest.stalled))
    drivers = Samples([run.cores("subscribers", "sender") for run, _ in largest.reading])
    print_line(
        f"\n{workers}; the drivers used {drivers.format(2)} of the machine's cores at {readers:,} subscribers and "
        f"{reached.format()} snapshots a second"
    )
    print_target(
        f"p99 under {MAX_P99_MS:.0f} ms at {readers:,} subscribers and {rate:,}/s",
        f"{p99.format()} ms at {reached.format()}/s; baseline {baseline.latency_quantile_ms(0.99):,.0f} ms",
        met=p99.median < MAX_P99_MS,
    )
    print_target(
        f"and with {plan.stalled} more stalled",
        f"{p99_with_stalled.format()} ms; the server {cores[1].format(2)} cores instead of {cores[0].format(2)}",
        met=p99_with_stalled.median < MAX_P99_MS,
    )
    print_target(
        f"memory grows by less than {MAX_GROWTH:.0%} from the first third of a run to the last",
        f"{growth:.1%} at most",
        met=growth < MAX_GROWTH,
    )


def _worker_count(count: int) -> str:
    return f"{count} worker{'s' * (count > 1)}"


def _row_name(readers: int, stalled: int) -> str:
    return f"{readers:,}" + (f" + {stalled} stalled" if stalled else "")


def _ms(run: FeedRun, quantile: float) -> str:
    return f"{run.latency_quantile_ms(quantile):,.0f}" if run.latencies_ms else ""


def _raise_file_limit(needed: int) -> None:
    """Raises the limit of open files for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise InvalidRun(f"The subscribers need {needed} open files; {hard} are allowed.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.feed", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few subscribers, low rates, short runs: a smoke test")
    parser.add_argument("--workers", type=parse_numbers, help="such as 1,2; everything is measured with the first")
    parser.add_argument("--subscribers", type=parse_numbers, help="such as 1,100,1000")
    parser.add_argument("--rates", type=parse_numbers, help="snapshots a second, such as 100,1000")
    parser.add_argument("--stalled", type=int, default=STALLED, help="subscribers that never read")
    parser.add_argument("--seconds", type=float, help="for each run")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    plan = _plan(options)

    def measure_plan(folder: Path) -> None:
        _raise_file_limit(max(plan.subscribers) + max(plan.stalled, STALLED_RUN_SIZE) + EXTRA_FILES)
        measure(plan, folder)

    return run_in_folder(options.folder, measure_plan)


def _plan(options: argparse.Namespace) -> Plan:
    subscribers, rates, seconds = ((1, 20), (50,), 2.0) if options.quick else (SUBSCRIBERS, RATES, 10.0)
    return Plan(
        options.workers or WORKERS,
        options.subscribers or subscribers,
        options.rates or rates,
        options.stalled,
        options.seconds or seconds,
        1 if options.quick else ROUNDS,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
