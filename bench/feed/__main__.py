"""`make bench-feed`: from 202 to the message at the subscriber, at 1,000 subscribers and 1,000 snapshots a second.

Beside each figure stands the floor: plain sockets to which the same bytes are written. Drivers, server and
PostgreSQL share the machine, so what each of them took of it is said too.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.feed.feed_run import SAMPLE, Memory, Run, run_the_floor, run_the_server
from bench.support import machine
from bench.support.errors import Fault
from bench.support.fleet import Fleet
from bench.support.report import Spread, Table, say, say_aim
from bench.support.server import RunningServer, run_server, settings
from shm.endings import orderly

WORKERS = (1, 2)
SUBSCRIBERS = (1, 100, 1_000)
RATES = (100, 1_000)
FLEET = 2_000  # installs that take turns: each reports every other second at the highest rate
UNREAD = 10  # with small buffers, so that they take nothing from the start
CROWD = 100  # subscribers beside whom, in one more run, as many never read
ROUNDS = 2  # of the largest, with and without the unread ones in turns
SPARE_FILES = 500  # descriptors beside one for each subscriber
P99_AIM_MS = 250.0
GROWTH_AIM = 0.05
COLUMNS = (
    *(
        ("subscribers", 17),
        ("asked/s", 7),
        ("stored/s", 8),
        ("202 p99", 7),
        ("told/s", 9),
        ("p50 ms", 7),
        ("p99 ms", 7),
    ),
    *(("us/message", 10), ("cores: server", 13), ("postgres", 8), ("drivers", 7), ("others", 6)),
    *(("MiB: before", 11), ("idle", 5), ("most", 5), ("after", 5)),
)

LEGEND = """{seconds:g} s each. ms are from 202 to the message, at {sample} subscribers (202 p99: from sending to it).
us/message is the server's time beyond what the same snapshots take with no subscriber: chance where few listen.
Drivers are the sender and the subscribers, who share the machine's cores with the server; others is what else went on
in the machine. The floor writes the same messages ten times a second, without a server; its ms are from when a message
was made. Where 202s come late, less is stored than asked.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many subscribers at which rates, for how long, and how often the largest.

    With the first of `workers` everything is measured, with the others the largest.
    """

    workers: Sequence[int]
    subscribers: Sequence[int]
    rates: Sequence[int]
    unread: int
    seconds: float
    rounds: int

    @property
    def largest(self) -> tuple[int, int]:
        """Subscribers and snapshots a second that the aims are about."""
        return max(self.subscribers), max(self.rates)


@dataclass(frozen=True, slots=True)
class Largest:
    """Each run of the largest with every subscriber reading, and with some more that do not."""

    reading: list[tuple[Run, Memory]]
    unread: list[tuple[Run, Memory]]


class _Bench:
    """The server that is measured, its fleet, and the table."""

    def __init__(self, plan: Plan, server: RunningServer, folder: Path, table: Table) -> None:
        self._plan = plan
        self._server = server
        self._folder = folder
        self._fleet = Fleet(FLEET)
        self._fleet.seed(server.dsn)
        self._table = table
        self._alone: dict[int, float] = {}  # processor seconds of the server with no subscriber, by rate

    def run(self, readers: int, rate: int, unread: int = 0) -> tuple[Run, Memory]:
        """Of the server; says a row, and before it the one of the same snapshots with no subscriber."""
        plan = self._plan
        if readers and rate not in self._alone:
            self.run(0, rate)
        run, memory = run_the_server(self._server, self._fleet, self._folder, rate, plan.seconds, readers, unread)
        if not readers:
            self._alone[rate] = run.cpu["server"] / run.sent.acknowledged
        without = self._alone[rate] * run.sent.acknowledged
        self._table.row(
            *(_named(readers, unread), f"{rate:,}", f"{run.rate:,.0f}", f"{run.answered_ms:,.0f}"),
            f"{run.messages_a_second:,.0f}",
            *(_ms(run, 0.5), _ms(run, 0.99), f"{run.us_a_message('server', without):.1f}" if readers else ""),
            *(f"{run.cores('server'):.2f}", f"{run.cores('postgres'):.2f}"),
            *(f"{run.cores('subscribers', 'sender'):.2f}", f"{run.cores('others'):.2f}"),
            *(f"{memory.before:,.0f}", f"{memory.idle:,.0f}", f"{max(memory.seen):,.0f}", f"{memory.after:,.0f}"),
        )
        _say_who_is_missing(run, readers)
        return run, memory


def measure(plan: Plan, folder: Path) -> None:
    """Everything, said as it is found. Raises Fault where a figure would not be true."""
    largest: dict[int, Largest] = {}
    table = Table(*COLUMNS)
    for workers in plan.workers:
        with run_server(folder / f"data{workers}", workers) as server:
            if not largest:
                say(machine.described(server.fetch_value("SHOW server_version"), folder))
                say(f"settings other than the defaults: {settings(1) or 'none'}; fsync is on")
                say(LEGEND.format(seconds=plan.seconds, sample=SAMPLE))
            say(f"{_workers(workers)}:")
            bench = _Bench(plan, server, folder, table)
            if not largest:
                _all_but_the_largest(plan, bench, table)
            largest[workers] = _largest(plan, bench)
    say("no server:")
    floor = _floor(plan, table, *plan.largest, largest[plan.workers[0]].reading[0][0].told.example)
    for workers in plan.workers:
        _say_aims(plan, _workers(workers), largest[workers], floor)


def _all_but_the_largest(plan: Plan, bench: _Bench, table: Table) -> None:
    for readers in plan.subscribers:
        for rate in plan.rates:
            if (readers, rate) != plan.largest:
                run, _ = bench.run(readers, rate)
                if readers == CROWD:
                    bench.run(readers, rate, unread=CROWD)
                _floor(plan, table, readers, rate, run.told.example)


def _largest(plan: Plan, bench: _Bench) -> Largest:
    found = Largest([], [])
    for _ in range(plan.rounds):
        found.reading.append(bench.run(*plan.largest))
        found.unread.append(bench.run(*plan.largest, unread=plan.unread))
    return found


def _floor(plan: Plan, table: Table, readers: int, rate: int, example: bytes) -> Run:
    """Says a row too."""
    run = run_the_floor(example, rate, plan.seconds, readers)
    table.row(
        *("the floor", f"{rate:,}", "", "", f"{run.messages_a_second:,.0f}", _ms(run, 0.5), _ms(run, 0.99)),
        *(f"{run.us_a_message('floor'):.1f}", f"{run.cores('floor'):.2f}", "", f"{run.cores('subscribers'):.2f}"),
        f"{run.cores('others'):.2f}",
        *("", "", "", ""),
    )
    _say_who_is_missing(run, readers)
    return run


def _say_who_is_missing(run: Run, readers: int) -> None:
    if run.told.behind or run.told.closed:
        say(
            f"    of these {readers:,}, {run.told.behind:,} had not been told everything {run.seconds:.0f} s after the "
            f"first snapshot, when it was given up, and the feed was closed on {run.told.closed:,}"
        )


def _say_aims(plan: Plan, workers: str, largest: Largest, floor: Run) -> None:
    readers, rate = plan.largest
    p99 = Spread([run.within(0.99) for run, _ in largest.reading])
    with_unread = Spread([run.within(0.99) for run, _ in largest.unread])
    reached = Spread([run.rate for run, _ in largest.reading])
    cores = [Spread([run.cores("server") for run, _ in runs]) for runs in (largest.reading, largest.unread)]
    growth = max(memory.growth for _, memory in (*largest.reading, *largest.unread))
    drivers = Spread([run.cores("subscribers", "sender") for run, _ in largest.reading])
    say(
        f"\n{workers}; the drivers took {drivers.shown(2)} of the machine's cores at {readers:,} subscribers and "
        f"{reached.shown()} snapshots a second"
    )
    say_aim(
        f"p99 under {P99_AIM_MS:.0f} ms at {readers:,} subscribers and {rate:,}/s",
        f"{p99.shown()} ms at {reached.shown()}/s; the floor {floor.within(0.99):,.0f} ms",
        met=p99.median < P99_AIM_MS,
    )
    say_aim(
        f"and with {plan.unread} more that never read",
        f"{with_unread.shown()} ms; the server {cores[1].shown(2)} cores instead of {cores[0].shown(2)}",
        met=with_unread.median < P99_AIM_MS,
    )
    say_aim(
        f"memory grows by less than {GROWTH_AIM:.0%} from the first third of a run to the last",
        f"{growth:.1%} at most",
        met=growth < GROWTH_AIM,
    )


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count > 1)}"


def _named(readers: int, unread: int) -> str:
    return f"{readers:,}" + (f" + {unread} unread" if unread else "")


def _ms(run: Run, share: float) -> str:
    return f"{run.within(share):,.0f}" if run.waits else ""


def _allow_files(wanted: int) -> None:
    """For this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise Fault(f"So many subscribers need {wanted} open files; {hard} are allowed.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str]) -> int:
    """0 when everything was measured, whether or not an aim was met; 1 where a figure would not be true."""
    parser = argparse.ArgumentParser(prog="bench.feed", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few, slow and short: to see that it works")
    parser.add_argument("--workers", type=_numbers, help="such as 1,2; with the first everything is measured")
    parser.add_argument("--subscribers", type=_numbers, help="such as 1,100,1000")
    parser.add_argument("--rates", type=_numbers, help="snapshots a second, such as 100,1000")
    parser.add_argument("--unread", type=int, default=UNREAD, help="subscribers that never read")
    parser.add_argument("--seconds", type=float, help="for each run")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with orderly(), tempfile.TemporaryDirectory(prefix="shm-bench-", dir=given.folder) as folder:
        if machine.file_system(Path(folder)) in machine.IN_MEMORY:
            print(f"{given.folder} lies in memory, where nothing is durable; say --folder.", file=sys.stderr)
            return 2
        try:
            plan = _plan(given)
            _allow_files(max(plan.subscribers) + max(plan.unread, CROWD) + SPARE_FILES)
            measure(plan, Path(folder))
        except Fault as fault:
            print(f"No figures: {fault}", file=sys.stderr)
            return 1
    say(f"took {time.monotonic() - began:.0f} s")
    return 0


def _plan(given: argparse.Namespace) -> Plan:
    subscribers, rates, seconds = ((1, 20), (50,), 2.0) if given.quick else (SUBSCRIBERS, RATES, 10.0)
    return Plan(
        given.workers or WORKERS,
        given.subscribers or subscribers,
        given.rates or rates,
        given.unread,
        given.seconds or seconds,
        1 if given.quick else ROUNDS,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
