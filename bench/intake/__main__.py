"""`make bench-intake`: durable snapshots a second, next to baselines of the same machine.

The baselines: a no-op server (the same Tornado answers 202 without reading the body), Ed25519 verification alone, and a
commit alone. Runs against the no-op server and the server alternate, so that other load affects both. wrk sends
requests that were signed before.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.intake import coordinator_run, wrk
from bench.intake.disk import CHANGING_METRICS, SnapshotDisk, measure_disk
from bench.intake.enrolments import measure_burst, measure_enrolments
from bench.intake.noop_processes import NoopServer, run_noop_server
from bench.intake.runs import PairRunner, RunPair, Totals
from bench.intake.two_workers import print_two_workers
from bench.support import machine
from bench.support.command import parse_numbers, run_in_folder
from bench.support.fleet import Fleet, signed_bodies, snapshot_body, usual_metrics
from bench.support.report import Samples, Table, print_line, print_target
from bench.support.server import RunningServer, run_server, settings

CONNECTIONS = (1, 8, 64, 256)
WORKERS = (1, 2)
FLEET_SIZE = 2_000  # installs that take turns: a batch holds each of them at most once
VERIFIED_BODIES = 500
TARGET_CONNECTIONS = 64
MIN_RATIO = 0.75
MAX_COMMITS_P50 = 10.0
MAX_COMMITS_P99 = 30.0
MIN_ENROLMENT_RATIO = 0.25
BURST = 1_000
MAX_BURST_WAIT_S = 1.0
ORIGINAL_ROW = 412  # bytes in PostgreSQL 18 for the same metrics
MAX_ROW_RATIO = 1.25
COLUMNS = (
    *(("connections", 11), ("no-op/s", 21), ("durable/s", 21), ("ratio", 16), ("p50 ms", 7), ("p99 ms", 7)),
    *(("cores: no-op", 12), ("server", 6), ("postgres", 8), ("wrk", 4)),
    *(("ms a snapshot: server", 21), ("postgres", 16)),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The measurements, with their length and number."""

    workers: Sequence[int]
    connections: Sequence[int]
    seconds: int
    rounds: int
    baseline_s: float  # for each baseline without a server
    dsn: str = ""  # of an empty database on a coordinator of Citus


@dataclass(frozen=True, slots=True)
class Baselines:
    """The machine's baseline, without other load."""

    verifications: float  # a second, on one core
    commit: machine.Percentiles


def measure(plan: Plan, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    fleet, totals = Fleet(FLEET_SIZE), Totals()
    data_dir = folder / "data"
    with run_server(data_dir, 1) as server:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), folder))
        print_line(f"settings other than the defaults: {settings(1)}; fsync and synchronous_commit are on")
        baselines = _measure_baselines(plan, folder, server.dsn, fleet)
        fleet.seed(server.dsn)
    full_loads: dict[int, list[RunPair]] = {}
    for workers in plan.workers:
        with run_server(data_dir, workers) as server, run_noop_server(workers) as noop:
            runner = PairRunner(folder, server, noop, totals, plan.seconds)
            runner.sign_noop_requests(fleet, baselines.verifications * workers, max(plan.connections))
            runner.run_pair(fleet, max(plan.connections))  # warms up the server's cache of public keys
            print_line(f"\n{workers} worker{'s' * (workers > 1)}, and as many processes of the no-op server:")
            pairs = _measure_connections(plan, runner, fleet)
            full_loads[workers] = pairs.get(TARGET_CONNECTIONS, [])
            if workers == 1 and TARGET_CONNECTIONS in pairs:
                full_load = pairs[TARGET_CONNECTIONS]
                half_load = _measure_half_load(plan, runner, fleet, full_load)
                new_fleet = Fleet(runner.request_count(_rate(full_load), TARGET_CONNECTIONS))
                new_fleet.seed(server.dsn)
                _print_cold(runner.run_pair(new_fleet, TARGET_CONNECTIONS, expected_rate=_rate(full_load)))
                _print_targets(full_load, half_load, baselines)
                _measure_enrolments(plan, server, folder, _rate(full_load))
                _measure_disk(plan, folder, noop, totals, _rate(full_load))
    if full_loads.get(1) and full_loads.get(2):
        print_two_workers(full_loads[1], full_loads[2])
    if plan.dsn:
        coordinator_run.compare(plan.dsn, folder, plan.connections, FLEET_SIZE, plan.seconds, plan.rounds, totals)
    _print_totals(totals)


def _measure_baselines(plan: Plan, folder: Path, dsn: str, fleet: Fleet) -> Baselines:
    """Before any other load."""
    signed = signed_bodies(fleet.installs[:VERIFIED_BODIES])
    verifications = machine.measure_verifications(signed, plan.baseline_s)
    body = snapshot_body(fleet.installs[0].instance_id, datetime.now(UTC), usual_metrics(0))
    fsync = machine.measure_fsyncs(folder, plan.baseline_s)
    commit = machine.measure_commits(dsn, body, plan.baseline_s)
    print_line(f"Ed25519 verification of the same {len(body)} bytes: {verifications:,.0f}/s on one core")
    print_line(f"a commit of one such row: p50 {commit.p50_ms:.2f} ms, p99 {commit.p99_ms:.2f} ms")
    print_line(f"    of which fdatasync: p50 {fsync.p50_ms:.2f} ms, p99 {fsync.p99_ms:.2f} ms")
    return Baselines(verifications, commit)


def _measure_connections(plan: Plan, runner: PairRunner, fleet: Fleet) -> dict[int, list[RunPair]]:
    """At the highest rate, for each number of connections."""
    table = Table(*COLUMNS)
    pairs: dict[int, list[RunPair]] = {}
    for connections in plan.connections:
        measured = pairs[connections] = [runner.run_pair(fleet, connections) for _ in range(plan.rounds)]
        table.print_row(
            f"{connections}",
            Samples([pair.noop.rate for pair in measured]).format(),
            Samples([pair.server.rate for pair in measured]).format(),
            Samples([pair.ratio for pair in measured]).format(2),
            f"{Samples([pair.server.p50_ms for pair in measured]).median:.1f}",
            f"{Samples([pair.server.p99_ms for pair in measured]).median:.1f}",
            f"{Samples([pair.noop_cores for pair in measured]).median:.2f}",
            f"{Samples([pair.server_cores for pair in measured]).median:.2f}",
            f"{Samples([pair.postgres_cores for pair in measured]).median:.2f}",
            f"{Samples([pair.server.wrk_cores for pair in measured]).median:.2f}",
            Samples([pair.server_ms for pair in measured]).format(2),
            Samples([pair.postgres_ms for pair in measured]).format(2),
        )
    return pairs


def _measure_half_load(plan: Plan, runner: PairRunner, fleet: Fleet, full_load: list[RunPair]) -> list[RunPair]:
    """At half of the highest rate: each connection pauses before each request, exponentially distributed."""
    target_rate = _rate(full_load) / 2
    pause_ms = TARGET_CONNECTIONS / target_rate * 1e3
    trial = runner.run_pair(fleet, TARGET_CONNECTIONS, pause_ms)  # its rate shows how long a response takes
    pause_ms -= TARGET_CONNECTIONS / trial.server.rate * 1e3 - TARGET_CONNECTIONS / target_rate * 1e3
    pairs = [runner.run_pair(fleet, TARGET_CONNECTIONS, pause_ms) for _ in range(plan.rounds)]
    print_line(
        f"half load, {TARGET_CONNECTIONS} connections: target {target_rate:,.0f}/s, reached {_rate(pairs):,.0f}/s, "
        f"p50 {Samples([pair.server.p50_ms for pair in pairs]).format(2)} ms, "
        f"p99 {Samples([pair.server.p99_ms for pair in pairs]).format(2)} ms; "
        f"the no-op server with the same pauses: p50 {Samples([pair.noop.p50_ms for pair in pairs]).format(2)} ms, "
        f"p99 {Samples([pair.noop.p99_ms for pair in pairs]).format(2)} ms"
    )
    return pairs


def _print_cold(pair: RunPair) -> None:
    print_line(
        f"cold, {TARGET_CONNECTIONS} connections, each snapshot the first of its install: {pair.server.rate:,.0f}/s, "
        f"{pair.ratio:.2f} of the no-op server, p50 {pair.server.p50_ms:.1f} ms, p99 {pair.server.p99_ms:.1f} ms"
    )


def _print_targets(full_load: list[RunPair], half_load: list[RunPair], baselines: Baselines) -> None:
    ratio = Samples([pair.ratio for pair in full_load])
    print_target(
        f"one worker, {TARGET_CONNECTIONS} connections: at least {MIN_RATIO} of the no-op server",
        ratio.format(2),
        met=ratio.median >= MIN_RATIO,
    )
    commit_ms = baselines.commit.p50_ms
    for name, limit, waits in (
        ("p50", MAX_COMMITS_P50, [pair.server.p50_ms / commit_ms for pair in half_load]),
        ("p99", MAX_COMMITS_P99, [pair.server.p99_ms / commit_ms for pair in half_load]),
    ):
        commits = Samples(waits)
        print_target(
            f"{name} at half load under {limit:.0f} commits",
            f"{commits.format(1)} times a commit's p50 of {commit_ms:.2f} ms",
            met=commits.median < limit,
        )
    for name, figures in (
        ("PostgreSQL", [pair.postgres_ms for pair in full_load]),
        ("the server", [pair.server_ms for pair in full_load]),
    ):
        cpu_ms = Samples(figures)
        print_line(
            f"CPU of {name} for a snapshot: {cpu_ms.format(2)} ms, as much as "
            f"{cpu_ms.median * baselines.verifications / 1e3:.1f} verifications"
        )


def _measure_enrolments(plan: Plan, server: RunningServer, folder: Path, snapshot_rate: float) -> None:
    """New installs, at the highest rate and as a burst."""
    runs = [
        measure_enrolments(server, folder, TARGET_CONNECTIONS, plan.seconds, snapshot_rate) for _ in range(plan.rounds)
    ]
    rate = Samples([run.rate for run in runs])
    print_line(
        f"enrolments, {TARGET_CONNECTIONS} connections: {rate.format()}/s, each a registration and an activation: "
        f"p50 {Samples([run.p50_ms for run in runs]).format(1)} ms, "
        f"p99 {Samples([run.p99_ms for run in runs]).format(1)} ms"
    )
    ratio = rate.median / snapshot_rate
    print_target(
        f"enrolments: at least {MIN_ENROLMENT_RATIO} of the durable snapshots",
        f"{ratio:.2f}",
        met=ratio >= MIN_ENROLMENT_RATIO,
    )
    waits = measure_burst(server, BURST)
    print_target(
        f"{BURST:,} new installs of one application at once: each request answered within {MAX_BURST_WAIT_S:.0f} s",
        f"longest {max(waits):.2f} s",
        met=max(waits) < MAX_BURST_WAIT_S,
    )


def _measure_disk(plan: Plan, folder: Path, noop: NoopServer, totals: Totals, snapshot_rate: float) -> None:
    """On a database of its own: pages with larger rows have free space, which the smaller ones would fill."""
    with run_server(folder / "disk", 1) as server:
        runner = PairRunner(folder, server, noop, totals, plan.seconds)
        _print_disk(measure_disk(server, runner, TARGET_CONNECTIONS, 2 * snapshot_rate))  # smaller bodies


def _print_disk(disk: SnapshotDisk) -> None:
    print_line(
        f"bytes on disk for a stored snapshot of {CHANGING_METRICS} metrics that all change: row {disk.row:.0f}, "
        f"indexes {disk.indexes:.0f}, series {disk.series:.0f}, totals and instances {disk.totals:.0f}; "
        f"write-ahead log {disk.wal:,.0f}"
    )
    ratio = (disk.row + disk.indexes) / ORIGINAL_ROW
    print_target(
        f"row and indexes: at most {MAX_ROW_RATIO} of a row without an index in the original's table, "
        f"{ORIGINAL_ROW} bytes",
        f"{ratio:.2f}",
        met=ratio <= MAX_ROW_RATIO,
    )


def _print_totals(totals: Totals) -> None:
    print_line(
        f"\nacknowledged {totals.acknowledged:,}, stored {totals.stored:,}, sent {totals.sent:,}; in each run "
        "acknowledged <= stored <= sent, each (install, timestamp) was sent once, no response was other than 2xx, and "
        "only requests in flight at the end had no response"
    )
    print_line(
        f"wrk with up to {wrk.MAX_THREADS} threads reached {totals.max_noop_rate:,.0f}/s on the no-op server, with at "
        f"most {totals.max_wrk_cores:.2f} cores"
    )


def _rate(pairs: list[RunPair]) -> float:
    return Samples([pair.server.rate for pair in pairs]).median


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.intake", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second each, as a smoke test")
    parser.add_argument("--workers", type=parse_numbers, default=WORKERS, help="such as 1,2")
    parser.add_argument("--connections", type=parse_numbers, default=CONNECTIONS, help="such as 1,8,64,256")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    parser.add_argument("--dsn", default="", help="an empty database on a coordinator of Citus, to compare with")
    options = parser.parse_args(arguments)
    if not wrk.is_installed():
        print(wrk.INSTALL_HINT, file=sys.stderr)
        return 2
    seconds, rounds, baseline_s = (1, 1, 0.5) if options.quick else (4, 3, 2.0)
    plan = Plan(options.workers, options.connections, seconds, rounds, baseline_s, options.dsn)
    return run_in_folder(options.folder, lambda folder: measure(plan, folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
