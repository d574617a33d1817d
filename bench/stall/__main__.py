"""`make bench-stall`: the longest wait of an honest install while strangers send the requests that cost most.

Honest installs send snapshots at a steady rate, each on its own connection. The first row has no strangers. Each
other row has one attack, with the limits of what installs send off, so that only the server's design protects the
honest ones. The limit of requests without a token is on: one client sends these as fast as the server answers.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.stall import attacks
from bench.stall.attacks import Attack, ConnectedInstall
from bench.support import machine
from bench.support.command import run_in_folder
from bench.support.errors import InvalidRun
from bench.support.report import Table, print_line, print_target
from bench.support.server import run_server, settings

HONEST_INSTALLS = 4
INTERVAL_S = 0.04  # between two snapshots of an honest install: together a hundred a second
QUIET_S = 5.0  # of the first row, and of each attack at least
MAX_WAIT_MS = 250.0
LIMITS = {
    "SHM_RATELIMIT_ENABLED": "true",
    # Without a period a limit does not apply.
    **{f"SHM_RATELIMIT_{kind}_PERIOD": "0" for kind in ("REGISTER", "SNAPSHOT", "FAILED", "ADMIN")},
    "SHM_MAX_NEW_INSTALLS": "1000000",
    "SHM_MAX_NEW_INSTALLS_PER_ADDRESS": "1000000",
    "SHM_MAX_BYTES_PER_ADDRESS": "1000g",
}
COLUMNS = (("strangers", 44), ("took s", 7), ("snapshots", 9), ("p50 ms", 7), ("p99 ms", 7), ("worst ms", 9))


@dataclass(slots=True)
class HonestInstall:
    """Sends snapshots on one connection and measures each."""

    install: ConnectedInstall
    waits: list[float] = field(default_factory=list)
    error: Exception | None = None

    def run(self, ended: threading.Event) -> None:
        """Sends until `ended`. A snapshot that is due while another is on its way follows at once."""
        try:
            due_at = time.perf_counter()
            while not ended.is_set():
                body = {"timestamp": datetime.now(UTC).isoformat(), "metrics": {"invoices_sent": len(self.waits)}}
                self.install.post("/v1/snapshot", body, expected=(202,))
                self.waits.append(time.perf_counter() - due_at)
                due_at = max(due_at + INTERVAL_S, time.perf_counter())
                time.sleep(max(0.0, due_at - time.perf_counter()))
        except (InvalidRun, OSError) as error:
            self.error = error


def measure(table: Table, honest: list[HonestInstall], name: str, strangers: list[Attack]) -> float:
    """Prints a row, and returns the longest wait in milliseconds."""
    for each in honest:
        each.waits.clear()
        each.install.connection.close()  # the server has closed it if the rollup took long
    ended = threading.Event()
    senders = [threading.Thread(target=each.run, args=(ended,)) for each in honest]
    errors: list[Exception] = []
    for sender in senders:
        sender.start()
    time.sleep(1.0)  # the honest ones are under way
    started_at = time.perf_counter()
    actors = [threading.Thread(target=_act, args=(attack, errors)) for attack in strangers]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join()
    took_s = time.perf_counter() - started_at
    time.sleep(max(0.0, QUIET_S - took_s))
    ended.set()
    for sender in senders:
        sender.join()
    if failed := [*errors, *(each.error for each in honest if each.error)]:
        raise InvalidRun(f"{name}: {failed[0]}")
    waits = sorted(wait * 1e3 for each in honest for wait in each.waits)
    p99 = statistics.quantiles(waits, n=100)[98]
    figures = f"{took_s:.1f}", f"{len(waits):,}", f"{statistics.median(waits):.1f}", f"{p99:.1f}", f"{waits[-1]:.0f}"
    table.print_row(name, *figures)
    return waits[-1]


def _act(attack: Attack, errors: list[Exception]) -> None:
    try:
        attack()
    except (InvalidRun, OSError) as error:
        errors.append(error)


def run(data_dir: Path, rows: int) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    with run_server(data_dir, 1, more_settings=LIMITS) as server:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), data_dir.parent))
        print_line(f"settings other than the defaults: {settings(1) | LIMITS}")
        print_line(f"{HONEST_INSTALLS} honest installs, each with {1 / INTERVAL_S:.0f} snapshots a second")
        honest = [HonestInstall(ConnectedInstall.register(server, "honest")) for _ in range(HONEST_INSTALLS)]
        worst: list[float] = []
        plans: list[tuple[str, Callable[[], list[Attack]]]] = [
            ("nobody", list),
            ("one erases itself, 128,000 invented keys", lambda: [attacks.erase_invented_keys(server)]),
            ("four erase themselves at the same time", lambda: attacks.erase_concurrently(server)),
            ("an admin deletes one", lambda: [attacks.delete_invented_keys(server)]),
            ("an admin revokes one", lambda: [attacks.revoke_invented_keys(server)]),
            (f"one erases itself, {rows:,} snapshots", lambda: [attacks.erase_long_history(server, rows)]),
            ("four send invented keys", lambda: attacks.flood_with_keys(server)),
            ("one requests 4 MiB forty times at once", lambda: attacks.disclose_at_once(server)),
            ("one sends GET on 400 connections", lambda: [attacks.flood_with_gets(server)]),
        ]
        table = Table(*COLUMNS)
        for name, prepare in plans:
            strangers = prepare()
            server.wait_until_rolled_up()
            worst.append(measure(table, honest, name, strangers))
        for (name, _), wait in zip(plans[1:], worst[1:], strict=True):
            print_target(f"{name}: longest wait under {MAX_WAIT_MS:.0f} ms", f"{wait:.0f} ms", met=wait < MAX_WAIT_MS)


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.stall", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="snapshots of the install with a long history")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    return run_in_folder(options.folder, lambda folder: run(folder / "data", options.rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
