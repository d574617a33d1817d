"""`make bench-intake`: durable snapshots a second, beside what the same machine does without them, in one run.

(a) is the same Tornado answering 202 to the same bytes unread, (b) Ed25519 verification alone, (c) a commit. (a) and
the server take turns, so that what else goes on in the machine hits both. wrk sends what was signed before.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.intake import wrk
from bench.intake.noop_processes import run_noop_server
from bench.intake.runs import Ledger, Pair, Runs
from bench.support import machine
from bench.support.errors import Fault
from bench.support.fleet import Fleet, signed_bodies, snapshot
from bench.support.report import Spread, Table, say, say_aim
from bench.support.server import run_server, settings
from shm.endings import orderly

CONNECTIONS = (1, 8, 64, 256)
WORKERS = (1, 2)
FLEET = 2_000  # installs that take turns: a batch holds each of them once at most
BODIES = 500  # verified over and over for (b)
AIMED_AT = 64  # connections
RATIO_AIM = 0.75
COMMITS_AIM = 3.0
COLUMNS = (
    *(("connections", 11), ("(a)/s", 21), ("durable/s", 21), ("ratio", 16), ("p50 ms", 7), ("p99 ms", 7)),
    *(("cores: (a)", 10), ("server", 6), ("postgres", 8), ("wrk", 4)),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, how long and how often."""

    workers: Sequence[int]
    connections: Sequence[int]
    seconds: int
    rounds: int
    alone_s: float  # for each of (b), (c) and fsync


@dataclass(frozen=True, slots=True)
class Alone:
    """What the machine does with nothing else to do."""

    verifications: float  # a second, on a core
    commit: machine.Times


def measure(plan: Plan, folder: Path) -> None:
    """Everything, said as it is found. Raises Fault where a figure would not be true."""
    fleet, ledger = Fleet(FLEET), Ledger()
    data_dir = folder / "data"
    with run_server(data_dir, 1) as server:
        say(machine.described(server.fetch_value("SHOW server_version"), folder))
        say(f"settings other than the defaults: {settings(1) or 'none'}; fsync and synchronous_commit are on")
        alone = _alone(plan, folder, server.dsn, fleet)
        fleet.seed(server.dsn)
    for workers in plan.workers:
        with run_server(data_dir, workers) as server, run_noop_server(workers) as mark:
            runs = Runs(folder, server, mark, ledger, plan.seconds)
            runs.ready_the_mark(fleet, alone.verifications * workers, max(plan.connections))
            runs.pair(fleet, max(plan.connections))  # so the server knows the fleet's keys
            say(f"\n{workers} worker{'s' * (workers > 1)}, and (a) in as many processes:")
            reached = _at_each(plan, runs, fleet)
            if workers == 1 and AIMED_AT in reached:
                aims = reached[AIMED_AT]
                half = _at_half(plan, runs, fleet, aims)
                cold = Fleet(runs.wanted(_rate(aims), AIMED_AT))
                cold.seed(server.dsn)
                _say_cold(runs.pair(cold, AIMED_AT, rate=_rate(aims)))
                _say_aims(aims, half, alone)
    _say_ledger(ledger)


def _alone(plan: Plan, folder: Path, dsn: str, fleet: Fleet) -> Alone:
    """(b) and (c), before anything else runs."""
    verifications = machine.verifications(signed_bodies(fleet.installs[:BODIES]), plan.alone_s)
    body = snapshot(fleet.installs[0].instance_id, datetime.now(UTC), 0)
    fsync = machine.fsyncs(folder, plan.alone_s)
    commit = machine.commits(dsn, body, plan.alone_s)
    say(f"(b) Ed25519 verification of the same {len(body)} bytes: {verifications:,.0f}/s on one core")
    say(f"(c) a commit of one such row: p50 {commit.p50_ms:.2f} ms, p99 {commit.p99_ms:.2f} ms")
    say(f"    of which the disk: fdatasync p50 {fsync.p50_ms:.2f} ms, p99 {fsync.p99_ms:.2f} ms")
    return Alone(verifications, commit)


def _at_each(plan: Plan, runs: Runs, fleet: Fleet) -> dict[int, list[Pair]]:
    """As fast as it goes, with each number of connections."""
    table = Table(*COLUMNS)
    reached: dict[int, list[Pair]] = {}
    for connections in plan.connections:
        pairs = reached[connections] = [runs.pair(fleet, connections) for _ in range(plan.rounds)]
        table.row(
            f"{connections}",
            Spread([pair.unread.rate for pair in pairs]).shown(),
            Spread([pair.durable.rate for pair in pairs]).shown(),
            Spread([pair.ratio for pair in pairs]).shown(2),
            f"{Spread([pair.durable.p50_ms for pair in pairs]).median:.1f}",
            f"{Spread([pair.durable.p99_ms for pair in pairs]).median:.1f}",
            f"{Spread([pair.unread_cpu for pair in pairs]).median:.2f}",
            f"{Spread([pair.server_cpu for pair in pairs]).median:.2f}",
            f"{Spread([pair.postgres_cpu for pair in pairs]).median:.2f}",
            f"{Spread([pair.durable.driver_cpu for pair in pairs]).median:.2f}",
        )
    return reached


def _at_half(plan: Plan, runs: Runs, fleet: Fleet, aims: list[Pair]) -> list[Pair]:
    """At half the rate that was reached: each connection waits, exponentially distributed, before each request."""
    wanted = _rate(aims) / 2
    pause_ms = AIMED_AT / wanted * 1e3
    tried = runs.pair(fleet, AIMED_AT, pause_ms)  # the pause without the time that an answer takes
    pause_ms -= AIMED_AT / tried.durable.rate * 1e3 - AIMED_AT / wanted * 1e3
    pairs = [runs.pair(fleet, AIMED_AT, pause_ms) for _ in range(plan.rounds)]
    say(
        f"half load, {AIMED_AT} connections: {wanted:,.0f}/s wanted, {_rate(pairs):,.0f}/s reached, "
        f"p50 {Spread([pair.durable.p50_ms for pair in pairs]).shown(2)} ms, "
        f"p99 {Spread([pair.durable.p99_ms for pair in pairs]).shown(2)} ms; "
        f"(a) at the same pauses: p50 {Spread([pair.unread.p50_ms for pair in pairs]).shown(2)} ms, "
        f"p99 {Spread([pair.unread.p99_ms for pair in pairs]).shown(2)} ms"
    )
    return pairs


def _say_cold(pair: Pair) -> None:
    say(
        f"cold, {AIMED_AT} connections, each snapshot the first of its install: {pair.durable.rate:,.0f}/s, "
        f"{pair.ratio:.2f} of (a), p50 {pair.durable.p50_ms:.1f} ms, p99 {pair.durable.p99_ms:.1f} ms"
    )


def _say_aims(aims: list[Pair], half: list[Pair], alone: Alone) -> None:
    ratio = Spread([pair.ratio for pair in aims])
    p99_ms = Spread([pair.durable.p99_ms for pair in half]).median
    in_commits, in_slow_ones = p99_ms / alone.commit.p50_ms, p99_ms / alone.commit.p99_ms
    say_aim(
        f"one worker, {AIMED_AT} connections: at least {RATIO_AIM} of (a)",
        ratio.shown(2),
        met=ratio.median >= RATIO_AIM,
    )
    say_aim(
        f"p99 at half of that under {COMMITS_AIM:.0f} commits",
        f"{in_commits:.1f} times a commit's p50, {in_slow_ones:.1f} times its p99",
        met=in_commits < COMMITS_AIM,
    )


def _say_ledger(ledger: Ledger) -> None:
    say(
        f"\nacknowledged {ledger.acknowledged:,}, stored {ledger.stored:,}, sent {ledger.sent:,}; in each run "
        "acknowledged <= stored <= sent, every (install, timestamp) once, non-2xx 0, and nothing unanswered but what "
        "was under way when time was up"
    )
    say(
        f"the driver: wrk, {wrk.THREADS} threads; it reached {ledger.most_unread:,.0f}/s on (a), "
        f"with {ledger.most_driver_cpu:.2f} of a core at most"
    )


def _rate(pairs: list[Pair]) -> float:
    return Spread([pair.durable.rate for pair in pairs]).median


def main(arguments: Sequence[str]) -> int:
    """0 when everything was measured, whether or not an aim was met; 1 where a figure would not be true."""
    parser = argparse.ArgumentParser(prog="bench.intake", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once and for a second each: to see that it works")
    parser.add_argument("--workers", type=_numbers, default=WORKERS, help="such as 1,2")
    parser.add_argument("--connections", type=_numbers, default=CONNECTIONS, help="such as 1,8,64,256")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    given = parser.parse_args(arguments)
    if not wrk.is_there():
        print(wrk.HOW_TO_GET_IT, file=sys.stderr)
        return 2
    seconds, rounds, alone_s = (1, 1, 0.5) if given.quick else (4, 3, 2.0)
    began = time.monotonic()
    with orderly(), tempfile.TemporaryDirectory(prefix="shm-bench-", dir=given.folder) as folder:
        if machine.file_system(Path(folder)) in machine.IN_MEMORY:
            print(f"{given.folder} lies in memory, where nothing is durable; say --folder.", file=sys.stderr)
            return 2
        try:
            measure(Plan(given.workers, given.connections, seconds, rounds, alone_s), Path(folder))
        except Fault as fault:
            print(f"No figures: {fault}", file=sys.stderr)
            return 1
    say(f"took {time.monotonic() - began:.0f} s")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
