"""`make bench-check`: `shm check` of a million snapshots beside a running server, and how long installs wait meanwhile.

The fleet is inserted by SQL. Four installs send a hundred snapshots a second, as long without a check as with it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.read.costs import run_check
from bench.read.embedded_fleet import seed_embedded
from bench.read.seeded_fleet import SeededFleet
from bench.support import machine
from bench.support.command import run_in_folder
from bench.support.honest_installs import COLUMNS, LIMITS, measure, register_honest
from bench.support.report import Samples, Table, print_line, print_target
from bench.support.server import run_server, settings

ROUNDS = 3
MAX_CHECK_S = 60.0


def run(data_dir: Path, fleet: SeededFleet) -> None:
    """Measures and prints everything. Raises InvalidRun if the check finds a difference."""
    seed_embedded(data_dir, fleet)
    with run_server(data_dir, 1, more_settings=LIMITS) as server:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), data_dir.parent))
        print_line(f"settings other than the defaults: {settings(1) | LIMITS}")
        honest = register_honest(server)
        table = Table(*COLUMNS)
        snapshots = server.count_snapshots()
        durations: list[float] = []
        cpu: list[float] = []

        def check() -> None:
            run_check(server.dsn, server.postmaster)

        for _ in range(ROUNDS):
            _, before = server.cpu_seconds()
            row = measure(table, honest, "shm check", [check])
            durations.append(row.took_s)
            cpu.append(server.cpu_seconds()[1] - before)
            measure(table, honest, "no check", [partial(time.sleep, row.took_s)])
    print_line(f"CPU of PostgreSQL during a check, with the intake: {Samples(cpu).format(1)} s")
    duration = Samples(durations)
    print_target(
        f"shm check of {snapshots:,} snapshots beside a server under {MAX_CHECK_S:.0f} s",
        f"{duration.format(1)} s",
        met=duration.median < MAX_CHECK_S,
    )


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.check", description=__doc__.partition("\n")[0])
    parser.add_argument("--installs", type=int, default=20_000)
    parser.add_argument("--snapshots", type=int, default=50, help="of each install")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    fleet = SeededFleet(options.installs, options.snapshots)
    return run_in_folder(options.folder, lambda folder: run(folder / "data", fleet))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
