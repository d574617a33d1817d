"""`make bench-ssh`: what ten consoles of `shm ssh` cost its machine, idle and at the demo's rate of reports.

It also prints the time from a key to the frame with its answer, through SSH, of keys to all sessions in turns.

Each has a real OpenSSH client in a pseudo-terminal. CPU time and memory are those of `shm ssh` with all of its
processes; memory that they share is counted once. The clients are not included.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.console.measures import SETTLE_S, SIZE, measure_keys, quantile
from bench.console.reports import Reporters, largest_application, sending
from bench.console.terminal import Terminal, open_program
from bench.read.embedded_fleet import seed_embedded
from bench.read.seeded_fleet import SeededFleet
from bench.support import machine
from bench.support.command import run_in_folder
from bench.support.errors import InvalidRun
from bench.support.processes import CHECKOUT, free_port, inherited_environment, python_process, wait_until
from bench.support.report import Table, print_line
from bench.support.server import RunningServer, run_server

SESSIONS = 10
FLEET = 160  # installs, and reports a second, as in `shm demo`
RATE = 12.0
ROUND_S = 25.0  # for one turn of all sessions
KEYS_IN_TURN = 4  # to each session: down twice, and up twice
READ_DURATION_S = 0.1  # for which each terminal is read in turn
COLUMNS = (("reports/s", 9), ("CPU % of a core", 15), ("MiB", 6), ("bytes/s of each", 15), ("key ms p50/p99", 14))
OPTIONS = ("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of all sessions together; the bytes are of one."""

    cpu_percent: float  # of a core
    mib: float
    bytes_per_s: float


def measure(seconds: float, rounds: int, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    if shutil.which("ssh") is None:
        raise InvalidRun("The OpenSSH client is not installed.")
    seed_embedded(folder / "fleet", SeededFleet(FLEET, 1))
    with run_server(folder / "fleet", 1) as server, run_ssh(server, folder) as (ssh, port), ExitStack() as stack:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), folder))
        reporters = Reporters(server.dsn, largest_application(server.dsn))
        command = ["ssh", *OPTIONS, "-o", f"UserKnownHostsFile={os.devnull}", "-i", str(folder / "key")]
        command += ["-p", str(port), "anybody@127.0.0.1"]
        terminals = [stack.enter_context(open_program(command, SIZE, {})) for _ in range(SESSIONS)]
        for terminal in terminals:
            terminal.wait_until(lambda terminal=terminal: terminal.has_rows)  # type: ignore[misc]
        _read_all(terminals, SETTLE_S)
        table = Table(*COLUMNS)
        cost = _measure_cost(ssh, terminals, seconds)
        table.print_row("0", *_cells(cost, _measure_keys(terminals, rounds)))
        with sending(reporters, server, folder, RATE, seconds + rounds * ROUND_S + SETTLE_S):
            cost = _measure_cost(ssh, terminals, seconds)
            table.print_row(f"{RATE:g}", *_cells(cost, _measure_keys(terminals, rounds)))


@contextmanager
def run_ssh(server: RunningServer, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """`shm ssh` and its port, with the authorized key `key` in the folder."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    add = [sys.executable, "-m", "shm.cli", "ssh", "add", "bench", str(folder / "key.pub"), "--data-dir", str(folder)]
    environment = inherited_environment("SHM_")
    subprocess.run(add, cwd=CHECKOUT, env=environment | {"SHM_DB_DSN": server.dsn}, capture_output=True, check=True)
    port = free_port()
    arguments = ("ssh", "--port", str(port), "--server", server.url, "--data-dir", str(folder))
    limits = ("--max-sessions-per-key", str(SESSIONS))
    with python_process("shm.cli", *arguments, *limits, log_file=folder / "ssh.log") as process:
        wait_until(lambda: _listens(port), process, "shm ssh")
        yield process, port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _measure_cost(ssh: "subprocess.Popen[bytes]", terminals: Sequence[Terminal], seconds: float) -> Cost:
    processes = [psutil.Process(ssh.pid), *psutil.Process(ssh.pid).children(recursive=True)]
    cpu, read = _cpu_seconds(processes), sum(terminal.bytes_read for terminal in terminals)
    started = time.perf_counter()
    _read_all(terminals, seconds)
    elapsed = time.perf_counter() - started
    return Cost(
        (_cpu_seconds(processes) - cpu) / elapsed * 100,
        sum(process.memory_full_info().pss for process in processes) / 2**20,
        (sum(terminal.bytes_read for terminal in terminals) - read) / elapsed / len(terminals),
    )


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU time of these processes. Each counts for itself: consoles are no children that `shm ssh` waits for."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def _read_all(terminals: Sequence[Terminal], seconds: float) -> None:
    """Reads all terminals in turns, so that no console waits for its own."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        for terminal in terminals:
            terminal.read_for(READ_DURATION_S)


def _measure_keys(terminals: Sequence[Terminal], rounds: int) -> list[float]:
    """Milliseconds from each key to its answer; the other terminals are read before the next session's turn."""
    answers: list[float] = []
    for terminal in [*terminals] * rounds:
        answers += measure_keys(terminal, KEYS_IN_TURN)
        _read_all(terminals, READ_DURATION_S)
    return answers


def _cells(cost: Cost, keys: list[float]) -> tuple[str, ...]:
    percentiles = f"{quantile(keys, 50):.0f}/{quantile(keys, 99):.0f}"
    return f"{cost.cpu_percent:.1f}", f"{cost.mib:,.0f}", f"{cost.bytes_per_s:,.0f}", percentiles


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.console.over_ssh", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short runs, as a smoke test")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    seconds, rounds = (5.0, 1) if options.quick else (60.0, 3)
    return run_in_folder(options.folder, lambda folder: measure(seconds, rounds, folder), is_durable=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
