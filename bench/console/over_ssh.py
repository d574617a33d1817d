"""`make bench-ssh`: what ten consoles of `shm ssh` cost, idle, at the demo's rate of reports and at a high one.

It also prints the time from a key to the frame with its answer, through SSH, of keys to all sessions in turns.

Each has a real OpenSSH client in a pseudo-terminal. CPU time and memory are those of `shm ssh` with all of its
processes; memory that they share is counted once. The clients are not included.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench.console.fleets import prepare_fleet
from bench.console.measures import SETTLE_S, SIZE, Answer, format_answers, measure_keys, p99_ms
from bench.console.reports import Reporters, largest_application, reached_rate, sending
from bench.console.terminal import Terminal, open_program
from bench.support import machine
from bench.support.command import run_in_folder
from bench.support.errors import InvalidRun
from bench.support.processes import CHECKOUT, free_port, inherited_environment, python_process, wait_until
from bench.support.report import Table, print_line, print_target
from bench.support.server import RunningServer, run_server

SESSIONS = 10
FLEET = 160  # installs, as in `shm demo`
DEMO_RATE, HIGH_RATE = 12.0, 1_000.0  # reports a second, of which every session gets each
MAX_KEY_MS = 50.0
MAX_BYTES = {0.0: 2_000.0, DEMO_RATE: 10_000.0}  # a second to each terminal, by the rate
ROUND_S = 25.0  # for one turn of all sessions
KEYS_IN_TURN = 4  # to each session: down twice, and up twice
READ_DURATION_S = 0.1  # for which each terminal is read in turn
COLUMNS = (
    ("reports/s", 9),
    ("reached", 7),
    ("CPU % of a core", 15),
    ("MiB", 6),
    ("bytes/s of each", 15),
    ("key ms p50/p99", 14),
)
OPTIONS = ("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of all sessions together; the bytes are of one."""

    cpu_percent: float  # of a core
    mib: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleet, where it is kept for the next run, and for how long everything is measured."""

    size: int
    fleets: Path | None
    seconds: float  # for CPU time and bytes
    rounds: int  # of keys to all sessions in turns


@dataclass(frozen=True, slots=True)
class Result:
    """All measures at one rate of reports, and the rate that the server reached."""

    rate: float
    reached: float
    cost: Cost
    keys: list[Answer]


def measure(plan: Plan, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    if shutil.which("ssh") is None:
        raise InvalidRun("The OpenSSH client is not installed.")
    data_dir = prepare_fleet(plan.fleets or folder, plan.size)
    with run_server(data_dir, 1) as server, run_ssh(server, folder) as (ssh, port), ExitStack() as stack:
        print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), folder))
        reporters = Reporters(server.dsn, largest_application(server.dsn))
        command = ["ssh", *OPTIONS, "-o", f"UserKnownHostsFile={os.devnull}", "-i", str(folder / "key")]
        command += ["-p", str(port), "anybody@127.0.0.1"]
        terminals = []
        starts = []
        for _ in range(SESSIONS):
            terminal = stack.enter_context(open_program(command, SIZE, {}))
            starts.append(terminal.wait_until(lambda shown=terminal: shown.has_rows) - terminal.started_at)  # type: ignore[misc]
            terminals.append(terminal)
        _read_all(terminals, SETTLE_S)
        print_line(f"{SESSIONS} sessions; from the login to the first rows: {statistics.median(starts):.2f} s each")
        table = Table(*COLUMNS)
        results = [_measure_all(plan, ssh, terminals)]
        table.print_row(*_cells(results[0]))
        for rate in (DEMO_RATE, HIGH_RATE):
            seconds = plan.seconds + plan.rounds * ROUND_S + SETTLE_S
            with sending(reporters, server, folder, rate, seconds) as sent:
                result = _measure_all(plan, ssh, terminals)
            results.append(replace(result, rate=rate, reached=reached_rate(sent[0])))
            table.print_row(*_cells(results[-1]))
    print_line()
    _print_targets(results)


def _measure_all(plan: Plan, ssh: "subprocess.Popen[bytes]", terminals: Sequence[Terminal]) -> Result:
    """Cost and keys, at the rate that is sent meanwhile."""
    cost = _measure_cost(ssh, terminals, plan.seconds)
    return Result(0.0, 0.0, cost, _measure_keys(terminals, plan.rounds))


def _print_targets(results: Sequence[Result]) -> None:
    for result in results:
        p99, name = p99_ms(result.keys), f"at {result.rate:g} reports a second"
        is_reached = result.reached >= 0.95 * result.rate
        figure = f"{p99:,.0f} ms at {result.reached:,.0f} a second"
        print_target(f"key to paint p99 under {MAX_KEY_MS:.0f} ms {name}", figure, met=p99 < MAX_KEY_MS and is_reached)
        if (limit := MAX_BYTES.get(result.rate)) is not None:
            read = result.cost.bytes_per_s
            print_target(f"{limit:,.0f} bytes a second to each terminal {name}", f"{read:,.0f}", met=read < limit)


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


def _measure_keys(terminals: Sequence[Terminal], rounds: int) -> list[Answer]:
    """The answer to each key; the other terminals are read before the next session's turn."""
    answers: list[Answer] = []
    for terminal in [*terminals] * rounds:
        answers += measure_keys(terminal, KEYS_IN_TURN)
        _read_all(terminals, READ_DURATION_S)
    return answers


def _cells(result: Result) -> tuple[str, ...]:
    cost = result.cost
    figures = f"{cost.cpu_percent:.1f}", f"{cost.mib:,.0f}", f"{cost.bytes_per_s:,.0f}"
    return f"{result.rate:,.0f}", f"{result.reached:,.0f}", *figures, format_answers(result.keys)


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.console.over_ssh", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short runs, as a smoke test")
    parser.add_argument("--size", type=int, default=FLEET, help=f"instances of the fleet; by default {FLEET}")
    parser.add_argument("--seconds", type=float, help="for CPU time and bytes; by default 60")
    parser.add_argument("--fleets", type=Path, help="a folder in which the fleet is kept for the next run")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the database, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    seconds, rounds = (5.0, 1) if options.quick else (60.0, 3)
    plan = Plan(options.size, options.fleets, options.seconds or seconds, rounds)
    return run_in_folder(options.folder, lambda folder: measure(plan, folder), is_durable=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
