"""`make bench-stall`: the longest wait of an honest install while others cost the server most.

Others are installs, admins and the server's own background jobs. Honest installs send snapshots at a steady rate, each
on its own connection. The first row has no attack. Each other row has one, with the limits of what installs send off,
so that only the server's design protects the honest ones. The limit of requests without a token is on: one client
sends these as fast as the server answers.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.attack import attacks, bulk
from bench.attack.attacks import Attack
from bench.read.costs import roll_up
from bench.support import machine
from bench.support.command import run_in_folder
from bench.support.honest_installs import COLUMNS, HONEST_INSTALLS, INTERVAL_S, LIMITS, measure, register_honest
from bench.support.report import Table, print_line, print_target
from bench.support.server import RunningServer, run_server, settings

MAX_WAIT_MS = 250.0


def run(data_dir: Path, rows: int, only: Sequence[str]) -> None:
    """Measures and prints the rows whose names contain a text of `only`, or all. Raises InvalidRun."""
    with run_server(data_dir, 1, more_settings=LIMITS) as server:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), data_dir.parent))
        print_line(f"settings other than the defaults: {settings(1) | LIMITS}")
        print_line(f"{HONEST_INSTALLS} honest installs, each with {1 / INTERVAL_S:.0f} snapshots a second")
        honest = register_honest(server)
        worst: list[tuple[str, float]] = []
        table = Table(*COLUMNS)
        measure(table, honest, "no attack", [])
        for name, prepare in _plans(server, rows):
            if only and not any(word in name for word in only):
                continue
            actions = prepare()
            roll_up(server.dsn, server.postmaster)
            worst.append((name, measure(table, honest, name, actions).worst_ms))
        for name, wait in worst:
            print_target(f"{name}: longest wait under {MAX_WAIT_MS:.0f} ms", f"{wait:.0f} ms", met=wait < MAX_WAIT_MS)


def _plans(server: RunningServer, rows: int) -> list[tuple[str, Callable[[], list[Attack]]]]:
    """The rows: a name, and what prepares the attacks."""
    return [
        ("one erases itself, 128,000 invented keys", lambda: [attacks.erase_invented_keys(server)]),
        ("four erase themselves at the same time", lambda: attacks.erase_concurrently(server)),
        ("an admin deletes one", lambda: [attacks.delete_invented_keys(server)]),
        ("an admin revokes one", lambda: [attacks.revoke_invented_keys(server)]),
        ("an admin merges an application of 20", lambda: [bulk.merge_applications(server)]),
        ("an admin deletes an application of 20", lambda: [bulk.delete_application(server)]),
        (f"a purge of {bulk.UNPROVEN:,} unproven installs", lambda: [bulk.purge_unproven(server)]),
        (f"a repair of {bulk.DIFFERING:,} installs", lambda: [bulk.repair(server)]),
        (f"a week of {bulk.EXPIRED_ROWS:,} snapshots expires", lambda: [bulk.drop_week(server)]),
        (f"one erases itself, {rows:,} snapshots", lambda: [attacks.erase_long_history(server, rows)]),
        ("four send invented keys", lambda: attacks.flood_with_keys(server)),
        ("one requests 4 MiB forty times at once", lambda: attacks.disclose_at_once(server)),
        ("one sends 100 refused backlogs at once", lambda: attacks.send_refused_backlogs(server)),
        ("one sends GET on 400 connections", lambda: [attacks.flood_with_gets(server)]),
    ]


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.attack", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="snapshots of the install with a long history")
    parser.add_argument("--only", action="append", default=[], help="rows whose names contain this; may be repeated")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    return run_in_folder(options.folder, lambda folder: run(folder / "data", options.rows, options.only))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
