"""How long honest installs wait while something else costs the server much: they send snapshots at a steady rate."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench.support.connected_install import ConnectedInstall
from bench.support.errors import InvalidRun
from bench.support.report import Table
from bench.support.server import RunningServer

HONEST_INSTALLS = 4
INTERVAL_S = 0.04  # between two snapshots of an honest install: together a hundred a second
MIN_ROW_S = 5.0  # so that each row has 500 snapshots
LIMITS = {
    "SHM_RATELIMIT_ENABLED": "true",
    # Without a period a limit does not apply.
    **{f"SHM_RATELIMIT_{kind}_PERIOD": "0" for kind in ("REGISTER", "SNAPSHOT", "FAILED", "ADMIN")},
    "SHM_MAX_NEW_INSTALLS": "1000000",
    "SHM_MAX_NEW_INSTALLS_PER_ADDRESS": "1000000",
    "SHM_MAX_BYTES_PER_ADDRESS": "1000g",
}
Action = Callable[[], None]
COLUMNS = (("meanwhile", 44), ("took s", 7), ("snapshots", 9), ("p50 ms", 7), ("p99 ms", 7), ("worst ms", 9))


@dataclass(frozen=True, slots=True)
class Row:
    """How long the other actions took, and the longest wait of an honest install."""

    took_s: float
    worst_ms: float


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


def register_honest(server: RunningServer) -> list[HonestInstall]:
    """New installs of one application."""
    return [HonestInstall(ConnectedInstall.register(server, "honest")) for _ in range(HONEST_INSTALLS)]


def measure(table: Table, honest: list[HonestInstall], name: str, actions: list[Action]) -> Row:
    """Prints and returns a row: the waits while the actions run, all at the same time."""
    for each in honest:
        each.waits.clear()
        each.install.connection.close()  # the server has closed it if the rollup took long
    ended = threading.Event()
    senders = [threading.Thread(target=each.run, args=(ended,)) for each in honest]
    errors: list[Exception] = []
    for sender in senders:
        sender.start()
    time.sleep(1.0)  # until all of them send
    started_at = time.perf_counter()
    threads = [threading.Thread(target=_run_action, args=(action, errors)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - started_at
    time.sleep(max(0.0, MIN_ROW_S - took_s))
    ended.set()
    for sender in senders:
        sender.join()
    if failed := [*errors, *(each.error for each in honest if each.error)]:
        raise InvalidRun(f"{name}: {failed[0]}")
    waits = sorted(wait * 1e3 for each in honest for wait in each.waits)
    p99 = statistics.quantiles(waits, n=100)[98]
    figures = f"{took_s:.1f}", f"{len(waits):,}", f"{statistics.median(waits):.1f}", f"{p99:.1f}", f"{waits[-1]:.0f}"
    table.print_row(name, *figures)
    return Row(took_s, waits[-1])


def _run_action(action: Action, errors: list[Exception]) -> None:
    try:
        action()
    except (InvalidRun, OSError) as error:
        errors.append(error)
