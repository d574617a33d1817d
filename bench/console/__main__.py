"""`make bench-console`: the real console in a pseudo-terminal, on servers with small and large fleets.

Start, keys, CPU time, bytes to the terminal and memory, each beside its aim. A start is printed beside that of an
application of Textual that shows one word, measured in turns with it, because machines differ and are never idle.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.console.fleets import prepare_fleet
from bench.console.measures import (
    SETTLE_S,
    SIZE,
    Answer,
    Cost,
    Start,
    format_answers,
    format_percentiles,
    measure_cost,
    measure_keys,
    measure_start,
    p99_ms,
)
from bench.console.reports import Reporters, largest_application, reached_rate, sending
from bench.console.terminal import open_console
from bench.support import machine
from bench.support.command import parse_numbers, run_in_folder
from bench.support.report import Table, print_line, print_target
from bench.support.server import RunningServer, run_server

SIZES = (1_000, 100_000, 1_000_000)
DEMO_FLEET = 160  # installs, as in `shm demo`: a third of the largest application is on the screen
DEMO_RATE = 12.0  # reports a second, as in `shm demo`
MAX_ROWS_S = 0.5
MAX_KEY_MS = 50.0
KEY_PERIOD_S = 0.5  # for which reports are sent for each key, with the moves between them; more than it takes
MAX_IDLE_CPU_PERCENT = 1.0
MAX_IDLE_BYTES, MAX_DEMO_BYTES = 2_000.0, 10_000.0  # a second
MAX_RESIDENT_MIB = 150.0
MINUTE_S = 60.0  # after which no age of the fleet is in seconds
COLUMNS = (
    *(("instances", 9), ("first paint s", 13), ("first rows s", 12), ("bare Textual s", 14)),
    *(("key ms p50/p99", 14), ("under load", 12), ("of it CPU", 9), ("reports/s", 9)),
    *(("CPU %: idle", 11), ("under load", 10), ("bytes/s: idle", 13), ("under load", 10), ("MiB", 5)),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleets, and how often and for how long each of them is measured."""

    sizes: Sequence[int]
    rate: float  # reports a second
    starts: int
    keys: int
    seconds: float  # for CPU time and bytes
    settle_s: float  # from the first rows until the console is idle
    fleets: Path | None  # where fleets are kept for the next run


@dataclass(frozen=True, slots=True)
class FleetResult:
    """All measures at one size."""

    starts: list[Start]
    keys: list[Answer]
    keys_under_load: list[Answer]
    rate: float
    idle: Cost
    under_load: Cost

    @property
    def rows_s(self) -> float:
        """The median of the starts."""
        return statistics.median(start.rows_s for start in self.starts)


def measure(plan: Plan, folder: Path) -> None:
    """Measures and prints everything. Raises InvalidRun if a figure would be wrong."""
    print_line(
        f"{SIZE[0]}x{SIZE[1]}; medians of {plan.starts} starts; under load: {plan.rate:,.0f} reports a second wanted"
    )
    results: dict[int, FleetResult] = {}
    table: Table | None = None
    for size in plan.sizes:
        with run_server(prepare_fleet(plan.fleets or folder, size), 1) as server:
            if table is None:
                print_line(machine.describe_machine(server.fetch_value("SHOW server_version"), folder))
                table = Table(*COLUMNS)
            results[size] = _measure_fleet(plan, server, folder)
        table.print_row(*_cells(size, results[size]))
    demo = _measure_demo(plan, folder)
    print_line()
    _print_targets(plan, results, demo)


def _measure_fleet(plan: Plan, server: RunningServer, folder: Path) -> FleetResult:
    starts = [measure_start(server) for _ in range(plan.starts)]
    reporters = Reporters(server.dsn, largest_application(server.dsn))
    with open_console(server.url, server.token, SIZE) as terminal:
        terminal.wait_until(lambda: terminal.has_rows)
        terminal.read_for(plan.settle_s)
        idle = measure_cost(terminal, plan.seconds)
        keys = measure_keys(terminal, plan.keys)
        with sending(reporters, server, folder, plan.rate, plan.seconds + plan.keys * KEY_PERIOD_S) as results:
            under_load = measure_cost(terminal, plan.seconds)
            keys_under_load = measure_keys(terminal, plan.keys)
    return FleetResult(starts, keys, keys_under_load, reached_rate(results[0]), idle, under_load)


def _measure_demo(plan: Plan, folder: Path) -> dict[str, float]:
    """Bytes a second in the orders in which a user reads a live table: by a metric, and the newest first."""
    read = {}
    with run_server(prepare_fleet(plan.fleets or folder, DEMO_FLEET), 1) as server:
        app = largest_application(server.dsn)
        reporters = Reporters(server.dsn, app)
        for order, place in (("a metric", f"{app}/instances"), ("the age", f"{app}/instances sort=seen")):
            with open_console(server.url, server.token, SIZE, "--view", place) as terminal:
                terminal.wait_until(lambda terminal=terminal: terminal.has_rows)  # type: ignore[misc]
                terminal.read_for(SETTLE_S)
                with sending(reporters, server, folder, DEMO_RATE, plan.seconds + 1):
                    read[order] = measure_cost(terminal, plan.seconds).bytes_per_s
    return read


def _cells(size: int, result: FleetResult) -> tuple[str, ...]:
    return (
        *(f"{size:,}", f"{statistics.median(start.paint_s for start in result.starts):.2f}", f"{result.rows_s:.2f}"),
        f"{statistics.median(start.bare_s for start in result.starts):.2f}",
        *(format_answers(result.keys), format_answers(result.keys_under_load)),
        *(format_percentiles([answer.cpu_ms for answer in result.keys_under_load]), f"{result.rate:,.0f}"),
        *(f"{result.idle.cpu_percent:.1f}", f"{result.under_load.cpu_percent:.1f}"),
        *(f"{result.idle.bytes_per_s:,.0f}", f"{result.under_load.bytes_per_s:,.0f}"),
        f"{result.under_load.resident_mib:,.0f}",
    )


def _print_targets(plan: Plan, results: dict[int, FleetResult], demo: dict[str, float]) -> None:
    for size, result in results.items():
        ratio = statistics.median(start.rows_s / start.bare_s for start in result.starts)
        print_target(
            f"first rows at {size:,} in under {MAX_ROWS_S * 1e3:.0f} ms",
            f"{result.rows_s * 1e3:,.0f} ms, {ratio:.2f} times a bare application of Textual",
            met=result.rows_s < MAX_ROWS_S,
        )
    _print_worst("key to paint p99 under {:.0f} ms, idle", MAX_KEY_MS, [p99_ms(each.keys) for each in results.values()])
    key = max(p99_ms(result.keys_under_load) for result in results.values())
    rate = min(result.rate for result in results.values())
    print_target(
        f"key to paint p99 under {MAX_KEY_MS:.0f} ms with {plan.rate:,.0f} reports a second",
        f"{key:,.0f} ms at {rate:,.0f} a second",
        met=key < MAX_KEY_MS and rate >= 0.95 * plan.rate,
    )
    _print_worst(
        "idle under {:g} % of a core", MAX_IDLE_CPU_PERCENT, [each.idle.cpu_percent for each in results.values()]
    )
    _print_worst("idle {:,.0f} bytes a second", MAX_IDLE_BYTES, [each.idle.bytes_per_s for each in results.values()])
    _print_worst(
        "memory under {:.0f} MiB", MAX_RESIDENT_MIB, [each.under_load.resident_mib for each in results.values()]
    )
    for order, read in demo.items():
        _print_worst(
            f"{{:,.0f}} bytes a second at {DEMO_RATE:g} reports a second, sorted by {order}", MAX_DEMO_BYTES, [read]
        )


def _print_worst(target: str, limit: float, figures: list[float]) -> None:
    worst = max(figures)
    print_target(target.format(limit), f"{worst:,.1f}", met=worst < limit)


def main(arguments: Sequence[str]) -> int:
    """Parses the arguments and measures. Returns the exit status of `run_in_folder`."""
    parser = argparse.ArgumentParser(prog="bench.console", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="1,000 instances and short runs, as a smoke test")
    parser.add_argument("--sizes", type=parse_numbers, help="instances of the fleets, such as 1000,100000")
    parser.add_argument("--rate", type=float, help="reports a second under load; by default 1,000")
    parser.add_argument("--seconds", type=float, help="for CPU time and bytes; by default 60")
    parser.add_argument("--fleets", type=Path, help="a folder in which fleets are kept for the next run")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="for the databases, on a real disk")  # noqa: S108
    options = parser.parse_args(arguments)
    return run_in_folder(options.folder, lambda folder: measure(_plan(options), folder), is_durable=False)


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        plan = Plan(SIZES[:1], 50.0, starts=1, keys=8, seconds=5.0, settle_s=SETTLE_S, fleets=options.fleets)
    else:
        plan = Plan(SIZES, 1_000.0, starts=7, keys=60, seconds=60.0, settle_s=MINUTE_S, fleets=options.fleets)
    chosen = {name: value for name in ("sizes", "rate", "seconds") if (value := getattr(options, name)) is not None}
    return replace(plan, **chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
